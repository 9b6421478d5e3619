"""What the step ``label_vessels`` takes and gives."""

from pydantic import Field

from components.step import Params, Port, Step, later


class LabelVesselsParams(Params):
    """Parameters of ``label_vessels``."""

    segmenter: str | None = Field(
        description="another segmenter by name, see retinalogos/generators/vessel_map/loaders.py; null: the trained one"
    )


STEP = Step(
    name="label_vessels",
    summary="artery and vein maps for eyes whose own maps do not tell them apart",
    params=LabelVesselsParams,
    run=later("components.label_vessels.run"),
    inputs={
        "cohort": Port("cohort", "Dataset"),
        "segmenter": Port("segmenter of `segment_vessels`", "Model"),
    },
    outputs={"labelled": Port("the cohort with a vessel map for every eye", "Dataset")},
)
