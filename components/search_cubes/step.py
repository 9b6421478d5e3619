"""What the step ``search_cubes`` takes and gives."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated

from pydantic import Field

from components.launcher import LauncherConfig
from components.step import Params, Port, Step, later
from retinalogos.generators.hyperspectral.configuration import AutoencoderConfig

Compression = AutoencoderConfig.model_fields["compression"].annotation


class SearchCubesParams(Params):
    """Parameters of ``search_cubes``; all others are read from what the steps that it repeats wrote."""

    enabled: bool = Field(description="whether the grid is searched")
    compression: list[Compression] = Field(min_length=1, description="pixels of a side that become one latent")  # type: ignore[valid-type]
    latent_channels: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)
    base_channels: list[Annotated[int, Field(ge=8, multiple_of=8)]] = Field(
        min_length=1, description="of the first level of the diffusion's U-Net"
    )
    timed: int = Field(ge=1, description="cubes whose drawing is timed, after as many that are not")
    share: list[int] | None = Field(
        min_length=1, description="numbers of the autoencoders, to make their points alone; null: all"
    )
    pods: int = Field(
        ge=1, exclude=True, description="Kubeflow: pods side by side, each with its share of autoencoders"
    )
    work: str = Field(exclude=True, description="folder for what is made, kept so that a killed search goes on")
    launcher: LauncherConfig = Field(exclude=True, description="who starts the processes that train")

    @property
    def autoencoders(self) -> list[tuple[int, int]]:
        """Compression and latent channels of each: what points that differ in base channels alone have in common."""
        return list(product(self.compression, self.latent_channels))


_RUN = "components.search_cubes.run"

STEP = Step(
    name="search_cubes",
    summary="the grid of compression, latent channels and base channels: quality against sampling speed",
    params=SearchCubesParams,
    run=later(_RUN),
    inputs={
        "cohort": Port("real cohort of cubes", "Dataset"),
        "autoencoder": Port("autoencoder of train_vqgan: how it was trained", "Model"),
        "generator": Port("generator of train_cube_diffusion: how it was trained", "Model"),
        "synthetic": Port("synthetic cohort of cubes: how it was drawn", "Dataset"),
        "judgement": Port("judgement of that cohort: how it was judged"),
    },
    outputs={"search": Port("results.json, grid.csv and pareto.png, or that nothing was searched")},
)


def joining(parts: Sequence[Path]) -> Step[SearchCubesParams]:
    """The step where others have made the points: it times all of them on one machine, and compares."""
    return replace(STEP, run=partial(later(_RUN, "join"), parts))
