"""What the step ``encode`` takes and gives."""

from pydantic import Field

from components.step import Params, Port, Step, later
from retinalogos.generators.text.configuration import RepresentationConfig


class EncodeParams(Params):
    """Parameters of ``encode``."""

    size: int = Field(ge=16, description="pixels: images are resized by area to this width before encoding")
    text_encoder: str = Field(description="minilm, a folder, or a name on the hub such as google/gemma-2b")
    text_layer: int = Field(lt=0, description="hidden state taken: -1 the last, -2 the one before")
    token_budget: int = Field(ge=8, description="most tokens of a caption")
    mirror: bool = Field(description="add each training eye mirrored, left and right exchanged in its captions")
    batch_size: int = Field(ge=1, description="images, or captions, encoded at once")
    representation: RepresentationConfig
    # A place: what lies there is known by the hashes in the index.
    shards_at: str | None = Field(
        exclude=True, description="s3://bucket/prefix for the shards; null: beside their index"
    )


STEP = Step(
    name="encode",
    summary="latents of the images and features of their captions, keyed by image",
    params=EncodeParams,
    run=later("components.encode.run"),
    inputs={
        "cohort": Port("cohort", "Dataset"),
        "captions": Port("captions of the cohort, all or curated", "Dataset"),
        "autoencoder": Port("autoencoder", "Model"),
        "validation": Port("verdict on the captions: it must have passed", optional=True),
        "known": Port("latents whose text features are taken over where the caption is the same", optional=True),
    },
    outputs={"latents": Port("latents and text features in shards", "Dataset")},
)
