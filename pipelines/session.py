"""The main line stage by stage in a folder of its own: for notebooks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.runner import run_step
from pipelines.graph import METRICS, Stage
from pipelines.main_line import STAGES
from pipelines.params import Choices, compose, validate
from retinalogos.errors import UsageError


class Session:
    """Runs stages where and when they are asked for; what they write lies in one folder, laid out as `make run` does.

    Args:
        folder: where everything is written.
        preset: as of `python -m pipelines params`; so are ``cohort``, ``data`` and ``settings``.
        cohort: name of the reader; None for the phantom.
        data: folder of the data set.
        settings: ``section.key=value``, one each.

    Raises:
        UsageError: what is asked for does not exist.
    """

    def __init__(
        self,
        folder: Path,
        preset: str = "laptop",
        cohort: str | None = None,
        data: str | None = None,
        settings: Sequence[str] = (),
    ):
        self.folder = Path(folder)
        # Checkpoints and captions in work too: two sessions must not go on from each other's.
        own = [f"{stage}.checkpoints={self.folder / 'checkpoints'}" for stage in ("pretrain", "finetune")]
        own.append(f"caption.work={self.folder / 'captions_in_work'}")
        settings = (*own, *settings)
        self.params: dict[str, Any] = compose(Choices(preset=preset, cohort=cohort, data=data, settings=settings))
        validate(self.params)

    def run(self, name: str) -> dict[str, Any]:
        """Runs a stage on what the stages before it wrote; returns its metrics.

        Raises:
            UsageError: there is no such stage, or a stage before it has not run.
        """
        stage = _stage(name)
        return run_step(
            stage.step,
            self.params[name],
            {port: self.path(*source) for port, source in stage.inputs.items()},
            {port: self.path(name, port) for port in (*stage.outputs, METRICS)},
            stage=name,
        )

    def path(self, stage: str, output: str) -> Path:
        """Where an output of a stage lies."""
        return self.folder / _stage(stage).path(output)


def _stage(name: str) -> Stage:
    for stage in STAGES:
        if stage.name == name:
            return stage
    raise UsageError(f"no stage is called {name!r}; the stages are {', '.join(stage.name for stage in STAGES)}")
