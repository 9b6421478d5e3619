"""Where the work of a training step is done: in this process, in several of this machine, or on several machines.

``local``     here.
``torchrun``  PyTorch's own launcher starts a process for each accelerator of this machine.
``trainjob``  Kubeflow Trainer starts it on several machines of a cluster, see :mod:`components.trainjob`.

Whatever starts them, the processes run :mod:`components.worker`, which does the step's work alone; parameters,
outputs, manifest and tracking stay with the process that asked for it. What is computed does not depend on the choice.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_jsonable_python

from components import ROOT
from components.step import Metrics, Params, Paths
from retinalogos.errors import DataError, UsageError
from retinalogos.training.configuration import TrainingConfig

# In the folder of a call: what to do, what came of it, or why nothing did.
CALL, METRICS, ERROR = "call.json", "metrics.json", "error.json"
ERRORS: dict[str, type[Exception]] = {"UsageError": UsageError, "DataError": DataError}
COMMIT = "RETINALOGOS_COMMIT"


class Expression(BaseModel):
    """A condition on the labels of a machine: required of it, or with a weight (1 to 100) preferred."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: list[str] = []
    weight: int | None = Field(default=None, ge=1, le=100)


class Pool(BaseModel):
    """What a machine of a node pool offers, and how a pod comes to it; fields as in infra/pools.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    accelerator: str | None = Field(description="resource, as nvidia.com/gpu; null: none")
    count: int = Field(ge=0, description="accelerators of a machine")
    cpu: str = Field(description="quantity")
    memory: str = Field(description="quantity")
    shared_memory: str | None = Field(description="quantity; processes of a machine exchange tensors there")
    selector: dict[str, str] = Field(description="labels that a machine must have")
    tolerations: list[dict[str, Any]] = Field(description="as in a pod; null stands for a field that is left out")
    affinity: list[Expression]


class TrainJobConfig(BaseModel):
    """Settings of the launcher ``trainjob``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: str = Field(
        description="ClusterTrainingRuntime of the workers: infra/kubernetes/base/training_runtime.yaml"
    )
    namespace: str | None = Field(description="null: that of this pod")
    nodes: int = Field(ge=1, description="machines")
    shared: str = Field(description="folder of a volume that this pod and the workers mount there")
    start_timeout_s: int = Field(ge=1, description="workers that have not started by then are given up")
    pool: Pool


class LauncherConfig(BaseModel):
    """Who starts the processes that train."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["local", "torchrun", "trainjob"]
    processes: int = Field(
        ge=0, description="on each machine; 0: one for each accelerator, or core where there is none"
    )
    trainjob: TrainJobConfig


class LaunchedParams(Params, TrainingConfig):
    """Parameters of a step that trains in the project's loop; those of what is trained come on top."""

    seed: int
    checkpoints: str = Field(
        exclude=True,
        description="folder for checkpoints and unpacked data, kept between runs so that a killed stage goes on",
    )
    launcher: LauncherConfig = Field(exclude=True, description="who starts the processes that train")


Work = Callable[[Any, Paths, Paths], Metrics]


def launched(name: str, work: Work) -> Work:
    """The work of step ``name``, done where its parameter ``launcher`` says."""

    def run(params: Any, inputs: Paths, outputs: Paths) -> Metrics:
        launcher: LauncherConfig = params.launcher
        # Inside a worker, or under a `torchrun` that someone started by hand, it has been launched already.
        if launcher.kind == "local" or "RANK" in os.environ:
            return work(params, inputs, outputs)
        if launcher.kind == "torchrun":
            return _torchrun(name, params, inputs, outputs)
        from components import trainjob

        return trainjob.run(name, params, inputs, outputs)

    return run


def write_call(folder: Path, step: str, params: Params, inputs: Paths, outputs: Paths) -> Path:
    """Writes what a worker reads: the step, all its parameters, where its inputs and outputs lie."""
    call = {
        "step": step,
        "commit": os.environ.get(COMMIT),
        # By field: a dump of the whole leaves out those that stand in no manifest.
        "params": to_jsonable_python(dict(params)),
        "inputs": {port: str(path) for port, path in inputs.items()},
        "outputs": {port: str(path) for port, path in outputs.items()},
    }
    path = folder / CALL
    path.write_text(json.dumps(call, indent=2) + "\n", encoding="utf-8")
    return path


def raise_error(folder: Path) -> None:
    """Raises what a worker found wrong with parameters or data, if one did."""
    with contextlib.suppress(FileNotFoundError):
        said = json.loads((folder / ERROR).read_text(encoding="utf-8"))
        raise ERRORS[said["error"]](said["message"])


def read_metrics(folder: Path) -> Metrics:
    """What the first worker returned."""
    metrics: Metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    return metrics


@contextlib.contextmanager
def ending_with(end: Callable[[], object]) -> Iterator[None]:
    """Calls ``end`` if the block is left by an exception, also by the signal with which containers are stopped."""

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if main else None
    try:
        yield
    except BaseException:
        end()
        raise
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


def _torchrun(name: str, params: Any, inputs: Paths, outputs: Paths) -> Metrics:
    with tempfile.TemporaryDirectory() as scratch:
        call = write_call(Path(scratch), name, params, inputs, outputs)
        each = str(params.launcher.processes or "auto")
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", each, "-m", "components.worker"]
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        process = subprocess.Popen([sys.executable, *words, str(call)], env=os.environ | {"PYTHONPATH": path})

        def end() -> None:
            process.terminate()  # it ends its workers then
            process.wait()

        with ending_with(end):
            code = process.wait()
        raise_error(Path(scratch))
        if code:
            raise RuntimeError(f"{name}: torchrun ended with exit code {code}; what its processes said stands above")
        return read_metrics(Path(scratch))
