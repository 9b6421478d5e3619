"""What the step ``judge_cubes`` takes and gives."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from components.step import Params, Port, Step, later
from retinalogos.training.configuration import TrainingConfig


class StructuresConfig(TrainingConfig):
    """The network that finds arteries, veins and nerve head."""

    width: int = Field(ge=8, multiple_of=8, description="channels")


class FiguresConfig(BaseModel):
    """What is drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cubes: int = Field(ge=1, description="real and synthetic cubes on the sheet, each")
    bands: int = Field(ge=1, description="single bands that are shown of a cube")
    points: list[tuple[float, float]] = Field(
        min_length=1,
        description="where the spectra of a real and of a synthetic cube are drawn, shares of width, height",
    )
    milliseconds: int = Field(ge=20, description="of a band in the sweep")


class JudgeCubesParams(Params):
    """Parameters of ``judge_cubes``."""

    seed: int
    features: list[Literal["structures", "random_conv"]] = Field(
        min_length=1, description="feature networks of the hyperspectral FID; structures needs truth maps"
    )
    most: int = Field(ge=4, description="cubes of each set that are compared, at most: bounds memory")
    bins: int = Field(ge=2, description="of reflectance, in the spectral divergence")
    pairs: int = Field(ge=1, description="of cubes, in MS-SSIM")
    side: int = Field(ge=4, description="pixels of the small copies in which nearest neighbours are looked for")
    resamples: int = Field(ge=0, description="of the bootstrap")
    structures: StructuresConfig
    figures: FiguresConfig
    checkpoints: str = Field(exclude=True, description="folder for checkpoints and unpacked cubes")


STEP = Step(
    name="judge_cubes",
    summary="judge synthetic cubes against real ones: distribution, spectra, diversity, copies, oxygen saturation",
    params=JudgeCubesParams,
    run=later("components.judge_cubes.run"),
    inputs={
        "cohort": Port("real cohort of cubes", "Dataset"),
        "synthetic": Port("synthetic cohort of cubes", "Dataset"),
        "autoencoder": Port("autoencoder of train_vqgan", "Model"),
        "baseline": Port("a VQ-VAE, whose rebuilding is compared", "Model", optional=True),
    },
    outputs={"judgement": Port("results.json, which names the pictures beside it")},
)
