"""dvc.yaml, written from the graph: ``python -m pipelines dvc``."""

from collections.abc import Iterable

from pipelines.graph import MAIN_LINE, METRICS, Stage
from pipelines.params import COMPOSED
from pipelines.sources import code_of

HEADER = """\
# Written by `python -m pipelines dvc` from pipelines/graph.py and the imports of the steps; a test keeps it up to date.
# `compose` always runs, and takes seconds: it writes the parameters of all stages from params.yaml, the preset and the
# settings that `make run` or `python -m pipelines params` were given. Stages whose parameters stay the same do not run.
stages:
  compose:
    cmd: python -m pipelines compose
    always_changed: true
    outs:
      - {composed}:
          cache: false
          persist: true
"""


def render() -> str:
    """The text of dvc.yaml."""
    return HEADER.format(composed=COMPOSED) + "".join(_render(stage) for stage in MAIN_LINE)


def _render(stage: Stage) -> str:
    by_name = {other.name: other for other in MAIN_LINE}
    inputs = {port: by_name[source.stage].path(source.output) for port, source in stage.inputs.items()}
    run = " ".join(["python -m components run", stage.step, f"--stage {stage.name} --params {COMPOSED}"])
    words = [f"--in {port}={path}" for port, path in inputs.items()]
    words += [f"--out {port}={path}" for port, path in {**stage.outputs, METRICS: stage.path(METRICS)}.items()]
    lines = [f"\n  {stage.name}:", "    cmd: >-", f"      {run}", *(f"      {word}" for word in words)]
    lines += ["    deps:", *_items([*dict.fromkeys(inputs.values()), *code_of(stage.step)])]
    lines += ["    params:", f"      - {COMPOSED}:", f"          - {stage.name}"]
    lines += ["    outs:", *_items(stage.outputs.values())]
    lines += ["    metrics:", f"      - {stage.path(METRICS)}:", "          cache: false"]
    return "\n".join(lines) + "\n"


def _items(paths: Iterable[str]) -> list[str]:
    return [f"      - {path}" for path in paths]
