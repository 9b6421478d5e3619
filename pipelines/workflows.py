"""The workflows by name, and the pipelines of all of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipelines import hyperspectral, lesion_map, main_line, vessel_map
from pipelines.graph import MAIN, Pipeline, Stage
from retinalogos.cohort.readers import CUBE_READERS, READERS
from retinalogos.errors import UsageError


@dataclass(frozen=True)
class Workflow:
    """A graph with parameters, presets, a dvc.yaml and outputs of its own. All paths are relative to the repository.

    Args:
        name: as ``make run WORKFLOW=…`` and ``--workflow`` have it.
        description: one line.
        stages: in an order in which they can run.
        readers: what its stage `ingest` reads, by the name that ``--cohort`` gives.
        left_open: parameters of `ingest` that a folder of data answers for itself.
    """

    name: str
    description: str
    stages: tuple[Stage, ...]
    readers: Mapping[str, str] = field(default_factory=lambda: READERS)
    left_open: tuple[str, ...] = ("n",)

    @property
    def params(self) -> str:
        """The file of its default parameters."""
        return self._home("params.yaml")

    @property
    def presets(self) -> str:
        """The folder of its presets."""
        return "pipelines/presets" if self.name == MAIN else self._home("presets")

    @property
    def dvc(self) -> str:
        """Its DVC file."""
        return self._home("dvc.yaml")

    @property
    def composed(self) -> str:
        """The parameters that its stages read."""
        return self._run("params.yaml")

    @property
    def choices(self) -> str:
        """What the last run was asked for."""
        return self._run("choices.yaml")

    def _home(self, file: str) -> str:
        return file if self.name == MAIN else f"workflows/{self.name}/{file}"

    def _run(self, file: str) -> str:
        return f"run/{file}" if self.name == MAIN else f"run/{self.name}/{file}"


WORKFLOWS: dict[str, Workflow] = {
    workflow.name: workflow
    for workflow in (
        Workflow(MAIN, "photographs and records to a text-to-fundus generator", main_line.STAGES),
        Workflow(lesion_map.NAME, "ICDR grade to lesion map to photograph", lesion_map.STAGES),
        Workflow(vessel_map.NAME, "vessel masks, photographs for them and their enlargement", vessel_map.STAGES),
        Workflow(
            hyperspectral.NAME,
            "hyperspectral cubes: VQ-GAN and latent diffusion",
            hyperspectral.STAGES,
            CUBE_READERS,
            ("n", "wavelengths"),
        ),
    )
}
# Of a workflow beside the main line, one pipeline of all its stages.
PIPELINES: dict[str, Pipeline] = {
    **main_line.PIPELINES,
    **{
        workflow.name: Pipeline(workflow.name, workflow.description, workflow.stages, workflow.name)
        for workflow in WORKFLOWS.values()
        if workflow.name != MAIN
    },
}


def workflow_of(name: str) -> Workflow:
    """A workflow by its name.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in WORKFLOWS:
        raise UsageError(f"no workflow is called {name!r}; the workflows are {', '.join(WORKFLOWS)}")
    return WORKFLOWS[name]


def stage_names(workflows: Iterable[Workflow] = tuple(WORKFLOWS.values())) -> list[str]:
    """Names of all stages, each once: workflows may have stages of the same name, such as ``ingest``."""
    return list(dict.fromkeys(stage.name for workflow in workflows for stage in workflow.stages))
