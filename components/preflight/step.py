"""What a run needs of its surroundings, looked at before anything is computed."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from components.step import Params, Step, later


class Toleration(BaseModel):
    """A taint of nodes that pods may overlook; words as in Kubernetes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None

    def covers(self, taint: Any) -> bool:
        """Whether a pod with it may stand on a node with this taint (an object of the Kubernetes client)."""
        return (
            self.effect in (None, taint.effect)
            and self.key in (None, taint.key)
            and (self.operator == "Exists" or (self.value or "") == (taint.value or ""))
        )


class PoolNeed(BaseModel):
    """What is asked of a node pool."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pods: int = Field(ge=1, description="side by side")
    accelerator: str | None = Field(description="resource name, such as nvidia.com/gpu")
    count: int = Field(ge=0, description="accelerators of a pod")
    cpu: str = Field(description="of a pod, as Kubernetes writes it")
    memory: str = Field(description="of a pod, as Kubernetes writes it")
    selector: dict[str, str] = Field(description="labels of its nodes")
    tolerations: tuple[Toleration, ...]
    from_zero: bool = Field(description="its nodes are made on demand: that there is none is no fault")


class PreflightParams(Params):
    """Parameters of ``preflight``; what is empty is not looked at."""

    secrets: tuple[str, ...] = Field(description="environment variables that must be set")
    storage: tuple[str, ...] = Field(description="s3://bucket/prefix")
    tracking: str | None = Field(description="address of the MLflow server")
    models: tuple[str, ...] = Field(description="names on the model hub")
    pools: dict[str, PoolNeed] = Field(description="node pools by name")
    runtimes: tuple[str, ...] = Field(description="ClusterTrainingRuntimes that TrainJobs are made from")
    timeout_s: float = Field(gt=0, le=30, description="seconds that an answer may take")


STEP = Step(
    name="preflight",
    summary="secrets, storage, tracking server, model hub, node pools and quota, before anything is computed",
    params=PreflightParams,
    run=later("components.preflight.run"),
)
