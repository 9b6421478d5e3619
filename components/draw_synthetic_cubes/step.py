"""What the step ``draw_synthetic_cubes`` takes and gives."""

from pydantic import Field

from components.step import Params, Port, Step, later


class DrawSyntheticCubesParams(Params):
    """Parameters of ``draw_synthetic_cubes``."""

    seed: int
    n: int = Field(ge=1, description="cubes to draw")
    steps: int | None = Field(ge=1, description="network evaluations; null for the generator's own")
    batch_size: int = Field(ge=1)


STEP = Step(
    name="draw_synthetic_cubes",
    summary="draw the synthetic cohort of hyperspectral cubes",
    params=DrawSyntheticCubesParams,
    run=later("components.draw_synthetic_cubes.run"),
    inputs={"generator": Port("generator of train_cube_diffusion", "Model")},
    outputs={"synthetic": Port("synthetic cohort of cubes", "Dataset")},
)
