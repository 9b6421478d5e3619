"""What the step ``train_vessel_map`` takes and gives."""

from typing import Self

from pydantic import Field, model_validator

from components.launcher import LauncherConfig, launched
from components.step import Params, Port, Step, later
from retinalogos.generators.vessel_map.configuration import DenoiserConfig, Part, TextConfig
from retinalogos.training.configuration import TrainingConfig


class TrainVesselMapParams(Params, TrainingConfig):
    """Parameters of ``train_vessel_map``."""

    seed: int
    part: Part = Field(description="which of the three models: masks, paint or enlarge")
    size: int = Field(ge=16, description="pixels of what is drawn")
    factor: int = Field(ge=1, description="enlarge: from size / factor to size; 1 for the others")
    crop: int | None = Field(ge=16, description="enlarge: pixels of the cuts that it learns from; null: whole pictures")
    most_noise: float = Field(ge=0, lt=1, description="enlarge: largest level of noise on what it is given")
    map_factor: int = Field(
        ge=0,
        description="pixels of a map along one of the painter's, so that maps may be finer than photographs; the same "
        "of all three models; enlarge: 0 where it is given no map",
    )
    text: TextConfig | None = Field(description="paint: captions as a further condition; null: none")
    network: DenoiserConfig
    checkpoints: str = Field(
        exclude=True, description="folder for checkpoints, kept between runs so that a killed stage goes on"
    )
    launcher: LauncherConfig = Field(exclude=True, description="who starts the processes that train")

    @model_validator(mode="after")
    def _enlarging(self) -> Self:
        if (self.part == "enlarge") != (self.factor > 1):
            raise ValueError(f"factor {self.factor} does not go with part {self.part}: enlarge alone has one above 1")
        if self.size % self.factor:
            raise ValueError(f"size {self.size} is no multiple of factor {self.factor}")
        if not self.map_factor and self.part != "enlarge":
            raise ValueError(f"map_factor 0 goes with part enlarge alone, not with {self.part}: it draws or takes maps")
        if self.text is not None and self.part != "paint":
            raise ValueError(f"text goes with part paint alone, not with {self.part}")
        return self


STEP = Step(
    name="train_vessel_map",
    summary="train one of the diffusion models: vessel masks, photographs for masks, or their enlargement",
    params=TrainVesselMapParams,
    run=launched("train_vessel_map", later("components.train_vessel_map.run")),
    inputs={"cohort": Port("cohort with artery and vein maps", "Dataset")},
    outputs={
        "model": Port("diffusers-layout folder, averaged weights", "Model"),
        "log": Port("log.jsonl and sample pictures"),
    },
)
