"""Where the pods of a pipeline stand, and what they are given there."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kfp import dsl, kubernetes

from components import image
from components.preflight.step import PoolNeed
from pipelines import pools
from pipelines.cluster import Cluster
from pipelines.graph import Stage
from pipelines.pools import Pool, place
from pipelines.workers import FIELDS, launched, launchers
from retinalogos.errors import UsageError


@dataclass(frozen=True)
class Placement:
    """Where the pods of a pipeline stand.

    Args:
        cluster: what they are given.
        pools: name and pool of each stage and of the pre-flight step.
        workers: the same of the workers of a TrainJob, by stage.
    """

    cluster: Cluster
    pools: Mapping[str, tuple[str, Pool]]
    workers: Mapping[str, tuple[str, Pool]] = field(default_factory=dict)

    def with_workers(self, values: Mapping[str, Any]) -> "Placement":
        """The pools of trainings that are TrainJobs given to their workers; the tasks wait on the default pool.

        Args:
            values: parameters by stage.

        Raises:
            UsageError: there is no volume that task and workers both see.
        """
        stages = launched(values)
        if stages and self.cluster.work.claim is None:
            raise UsageError(
                f"{stages[0]}.launcher.kind: trainjob needs a volume that its workers mount too: name it in "
                "infra/cluster.yaml, work.claim"
            )
        waiting = dict.fromkeys(stages, pools.default())
        return replace(self, pools={**self.pools, **waiting}, workers={stage: self.pools[stage] for stage in stages})

    def handed_over(self, values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """By stage that can train on several machines, the pool of its workers as its parameters have it."""
        chosen = {**self.pools, **self.workers}
        return {stage: chosen[stage][1].model_dump(mode="json", include=FIELDS) for stage in launchers(values)}

    def needs(self, stages: Iterable[Stage], values: Mapping[str, Any]) -> dict[str, PoolNeed]:
        """What stages ask of the pools that they are on, by pool: the pods of the stage that asks for most.

        Args:
            stages: of the pipeline.
            values: parameters by stage.
        """
        most: dict[str, int] = {}
        for stage in stages:
            section = values[stage.name]
            asked = Counter({self.pools[stage.name][0]: section.get("pods", 1)})
            if stage.name in self.workers:
                asked[self.workers[stage.name][0]] += section["launcher"]["trainjob"]["nodes"]
            for name, count in asked.items():
                most[name] = max(most.get(name, 1), count)
        by_name = dict([*self.pools.values(), *self.workers.values()])
        return {name: by_name[name].need(count) for name, count in most.items()}

    def __call__(self, task: dsl.PipelineTask, stage: str, target: image.Target | None = None) -> None:
        """Puts a task where its stage is to run, in the image of its pool unless another is named."""
        name, pool = self.pools[stage]
        place(task, name, pool)
        reference = image.image(target or ("gpu" if pool.accelerator else "cpu"))
        task.set_container_image(reference)
        kubernetes.set_security_context(task, run_as_non_root=True)
        tracking = {"MLFLOW_TRACKING_URI": self.cluster.tracking} if self.cluster.tracking else {}
        # What a step records as its image: the file in the image itself is older than the image.
        for key, value in {**self.cluster.environment, **tracking, image.VARIABLE: reference}.items():
            task.set_env_variable(key, value)
        for secret in self.cluster.secrets.values():
            keys = {key: variable for variable, key in secret.keys.items()}
            # Optional, because a pod with a secret that is not there would wait for it without a word. Whether this run
            # needs it, and has it, the pre-flight step says.
            kubernetes.use_secret_as_env(task, secret.name, keys, optional=True)
        if self.cluster.work.claim:
            kubernetes.mount_pvc(task, self.cluster.work.claim, self.cluster.work.path)
        else:
            kubernetes.empty_dir_mount(task, "work", self.cluster.work.path)
