"""What the pods of a pipeline are given besides a node pool: infra/cluster.yaml."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from components import ROOT
from retinalogos.errors import UsageError

FILE = ROOT / "infra" / "cluster.yaml"
# What steps call the places of their unfinished work, and the folder of the work volume for it.
_WORK = {"work": "captions", "judge.work": "judged", "checkpoints": "checkpoints", "launcher.trainjob.shared": ""}


class Secret(BaseModel):
    """A Kubernetes Secret: environment variable of the pod → key in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    keys: dict[str, str]


class Work(BaseModel):
    """Where unfinished work lies: a folder of the pod, on a volume that outlives it where there is a claim."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    claim: str | None


class Cluster(BaseModel):
    """See infra/cluster.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tracking: str | None
    storage: str | None
    environment: dict[str, str]
    secrets: dict[Literal["storage", "hub", "captions"], Secret]
    work: Work
    pools_checked: bool

    def settings(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Parameters that follow from it: where unfinished work lies, of each stage that keeps some.

        Args:
            values: composed parameters.
        """
        found = []
        for stage, section in values.items():
            for name, folder in _WORK.items():
                if _has(section, name.split(".")):
                    found.append(f"{stage}.{name}={'/'.join(filter(None, (self.work.path, folder)))}")
        return tuple(found)


def _has(section: Any, keys: Sequence[str]) -> bool:
    return not keys or (isinstance(section, Mapping) and keys[0] in section and _has(section[keys[0]], keys[1:]))


def read(path: Path = FILE) -> Cluster:
    """The cluster's file.

    Raises:
        UsageError: a field is missing, unknown or does not fit.
    """
    try:
        return Cluster.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: {error}") from None
    except ValidationError as error:
        found = [f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors()]
        raise UsageError(f"{path}: {'; '.join(found)}") from None
