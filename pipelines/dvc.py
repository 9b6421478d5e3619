"""The dvc.yaml of each workflow, written from its graph: ``python -m pipelines dvc``."""

from collections.abc import Iterable
from pathlib import PurePath

from pipelines.graph import METRICS, Stage
from pipelines.sources import code_of
from pipelines.workflows import Workflow

# Written beside a stage's log.
CURVES = "curves.json"

HEADER = """\
# Written by `python -m pipelines dvc` from the graph in pipelines/ and the imports of the steps; a test keeps it up to
# date. `compose` always runs, and takes seconds: it writes the parameters of all stages from {params}, the preset
# and the settings that `make run` or `python -m pipelines params` were given. Stages whose parameters stay the same do
# not run.
stages:
  compose:
    cmd: python -m pipelines compose{option}
    always_changed: true{wdir}
    outs:
      - {composed}:
          persist: true
"""


def render(workflow: Workflow) -> str:
    """The text of the dvc.yaml of a workflow."""
    # Stages run at the top of the repository, wherever their file lies.
    up = "/".join([".."] * len(PurePath(workflow.dvc).parent.parts))
    head = HEADER.format(
        params=workflow.params,
        option=f" --workflow {workflow.name}" if up else "",
        wdir=f"\n    wdir: {up}" if up else "",
        composed=workflow.composed,
    )
    return head + "".join(_render(stage, workflow, up) for stage in workflow.stages) + _plots(workflow, up)


def _render(stage: Stage, workflow: Workflow, up: str) -> str:
    by_name = {other.name: other for other in workflow.stages}
    inputs = {port: by_name[source.stage].path(source.output) for port, source in stage.inputs.items()}
    run = " ".join(["python -m components run", stage.step, f"--stage {stage.name} --params {workflow.composed}"])
    words = [f"--in {port}={path}" for port, path in inputs.items()]
    words += [f"--out {port}={path}" for port, path in {**stage.outputs, METRICS: stage.path(METRICS)}.items()]
    lines = [f"\n  {stage.name}:", "    cmd: >-", f"      {run}", *(f"      {word}" for word in words)]
    lines += [f"    wdir: {up}"] if up else []
    lines += ["    deps:", *_items([*dict.fromkeys(inputs.values()), *code_of(stage.step)])]
    lines += ["    params:", f"      - {workflow.composed}:", f"          - {stage.name}"]
    lines += ["    outs:", *_items(stage.outputs.values())]
    # In the cache like all outputs: a clone that pulls has them, and `dvc metrics diff` knows those of other commits.
    lines += ["    metrics:", *_items([stage.path(METRICS)])]
    return "\n".join(lines) + "\n"


def _plots(workflow: Workflow, up: str) -> str:
    """What `dvc plots` draws: the curves of the stages that train."""
    logs = {stage.name: stage.outputs["log"] for stage in workflow.stages if "log" in stage.outputs}
    lines = ["", "plots:"] if logs else []
    for name, log in logs.items():
        lines += [
            f"  - loss of {name}:",
            "      x: step",
            "      y:",
            f"        {'/'.join(filter(None, (up, log, CURVES)))}: [loss, validation_loss]",
        ]
        lines += ["      y_label: loss"]
    return "\n".join(lines) + "\n" if lines else ""


def _items(paths: Iterable[str]) -> list[str]:
    return [f"      - {path}" for path in paths]
