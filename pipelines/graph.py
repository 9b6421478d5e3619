"""What graphs are made of: stages, what feeds them, where their outputs lie in a working copy, and pipelines of them.

The graph of each workflow is declared once (``pipelines/main_line.py`` and its neighbours): its dvc.yaml has the same
stages and edges, which a test compares, and the Kubeflow pipelines are built from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

METRICS = "metrics"
# The workflow whose parameters, dvc.yaml and outputs lie at the top of the repository.
MAIN = "main"


class Source(NamedTuple):
    """Where an input comes from: an output port of an earlier stage."""

    stage: str
    output: str


@dataclass(frozen=True)
class Stage:
    """A step at its place in the graph; its parameters are the section of params.yaml that bears its name.

    Args:
        name: name of the stage.
        step: the step that it runs.
        inputs: source by input port.
        outputs: path by output port, relative to the repository; ``metrics`` goes to ``metrics/<name>.json``.
        group: of a stage of another workflow than the main line, the workflow's name: ``metrics`` goes to
            ``metrics/<group>/<name>.json``.
    """

    name: str
    step: str
    inputs: Mapping[str, Source] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    group: str = ""

    def path(self, output: str) -> str:
        """Where an output lies, relative to the repository."""
        if output != METRICS:
            return self.outputs[output]
        return "/".join(filter(None, ("metrics", self.group, f"{self.name}.json")))


@dataclass(frozen=True)
class Pipeline:
    """Stages of a workflow that run together on Kubeflow.

    Args:
        name: of the pipeline.
        description: one line.
        stages: in an order in which they can run.
        workflow: whose stages they are.
        composed: the parameters of the stages are composed in the run's first task, from a preset and a few words.
    """

    name: str
    description: str
    stages: tuple[Stage, ...]
    workflow: str = MAIN
    composed: bool = False

    @property
    def given(self) -> dict[str, Source]:
        """What stages take from others that do not run here, by the name under which its address is given."""
        own = {stage.name for stage in self.stages}
        sources = [source for stage in self.stages for source in stage.inputs.values()]
        return {source.output: source for source in sources if source.stage not in own}
