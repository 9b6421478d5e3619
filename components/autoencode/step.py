"""What the step ``autoencode`` takes and gives."""

from typing import Literal

from pydantic import Field

from components.step import Params, Port, Step, later


class AutoencodeParams(Params):
    """Parameters of ``autoencode``."""

    engine: Literal["patch", "pretrained"] = Field(description="fit a linear patch autoencoder, or load one by name")
    name: str = Field(description="pretrained: folder or name on the hub, e.g. stabilityai/sdxl-vae; patch: unused")
    patch: int = Field(ge=2, description="patch: width of a patch in pixels, the downscale factor")
    components: int = Field(ge=1, description="patch: latent channels")
    whitening: float = Field(ge=0, le=1, description="patch: 0 keeps the natural spectrum, 1 makes all variances equal")
    judged: int = Field(ge=1, description="test images on which the reconstruction is measured")


STEP = Step(
    name="autoencode",
    summary="fit or fetch the autoencoder and measure what it keeps of vessels and lesions",
    params=AutoencodeParams,
    run=later("components.autoencode.run"),
    inputs={
        "cohort": Port("cohort whose training split is fitted", "Dataset"),
        "validation": Port("verdict on the cohort: it must have passed"),
    },
    outputs={"autoencoder": Port("diffusers-layout folder", "Model")},
)
