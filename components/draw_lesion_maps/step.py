"""What the step ``draw_lesion_maps`` takes and gives."""

from pydantic import Field

from components.step import Params, Port, Step, later


class DrawLesionMapsParams(Params):
    """Parameters of ``draw_lesion_maps``."""

    seed: int
    per_grade: tuple[int, int, int, int, int] = Field(description="eyes wanted of each ICDR grade, 0 to 4")
    truncation: float = Field(ge=0, description="towards the grade's mean style: 1 none, 0 all the way")
    spread: float = Field(ge=0, description="of the drawn styles, as a factor on that of the training photographs'")


STEP = Step(
    name="draw_lesion_maps",
    summary="draw lesion maps by grade and their photographs as a synthetic cohort",
    params=DrawLesionMapsParams,
    run=later("components.draw_lesion_maps.run"),
    inputs={
        "cohort": Port("real cohort, which names the synthetic one", "Dataset"),
        "layout": Port("layout network, or that there is none", "Model"),
        "render": Port("renderer", "Model"),
    },
    outputs={
        "generator": Port("both networks, model_index.json", "Model"),
        "synthetic": Port("synthetic cohort with its lesion, disc and field maps", "Dataset"),
    },
)
