"""What the step ``draw_vessels`` takes and gives."""

from pydantic import Field

from components.step import Params, Port, Step, later


class DrawVesselsParams(Params):
    """Parameters of ``draw_vessels``."""

    seed: int
    n: int = Field(ge=1, description="eyes to draw")
    large: bool = Field(description="the cohort holds the enlarged pictures, else those of the painter's size")
    noise: float = Field(ge=0, lt=1, description="level of noise on what is enlarged; 0: none")
    tile: int = Field(ge=16, description="pixels of the tiles in which larger pictures are enlarged")
    overlap: int = Field(ge=0, description="pixels that neighbouring tiles share")
    batch_size: int = Field(ge=1)
    shown: int = Field(ge=1, description="eyes on the grid: the first ones, uncurated")


STEP = Step(
    name="draw_vessels",
    summary="draw eyes: a vessel map, its photograph and the enlargement",
    params=DrawVesselsParams,
    run=later("components.draw_vessels.run"),
    inputs={
        "cohort": Port(
            "real cohort: where its training eyes have disc and fovea, and their sides, are asked for", "Dataset"
        ),
        "masks": Port("model that draws masks", "Model"),
        "paint": Port("model that paints photographs", "Model"),
        "enlarge": Port("model that enlarges", "Model"),
    },
    outputs={
        "generator": Port("the three models as one folder, model_index.json", "Model"),
        "synthetic": Port("synthetic cohort with its vessel maps", "Dataset"),
        "grid": Port("grid.png: mask, photograph, enlargement"),
    },
)
