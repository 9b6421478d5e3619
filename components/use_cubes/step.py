"""What the step ``use_cubes`` takes and gives."""

from typing import Literal

from pydantic import Field

from components.step import Params, Port, Step, later
from retinalogos.training.configuration import TrainingConfig


class NetworkConfig(Params):
    """The masked autoencoder."""

    patch: int = Field(ge=2, description="pixels of a side of a token")
    width: int = Field(ge=16, multiple_of=16)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    mask: float = Field(gt=0, lt=1, description="share of the tokens that is hidden")


class UseCubesParams(Params):
    """Parameters of ``use_cubes``."""

    seeds: list[int] = Field(min_length=3, description="a pre-training and a probe each")
    label: str = Field(
        description="key in the column `labels` whose value, true or false, is told; without it in any cube nothing is"
    )
    labelled: int = Field(ge=4, description="real training cubes whose label is shown, at most")
    most: int = Field(ge=4, description="cubes of a set, at most: bounds memory")
    resamples: int = Field(ge=0, description="of the bootstrap")
    view: Literal["reflectance", "contrasts"] = Field(
        description="what the network sees of cubes: their reflectance, or each pixel against its surroundings"
    )
    network: NetworkConfig
    training: TrainingConfig


STEP = Step(
    name="use_cubes",
    summary="pre-train on real, synthetic or both kinds of cubes, and tell a biomarker from few labels",
    params=UseCubesParams,
    run=later("components.use_cubes.run"),
    inputs={
        "cohort": Port("real cohort of cubes, some or all with labels", "Dataset"),
        "synthetic": Port("synthetic cohort of cubes", "Dataset"),
    },
    outputs={"use": Port("results.json: area under the curve and gain of each source of pre-training")},
)
