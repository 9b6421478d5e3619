"""Stage 3 once more without purification; what it is held against was made with the same settings and seeds."""

import json
import shutil
from pathlib import Path
from typing import Any

from components.ablate.step import AblateParams
from components.assess.step import STEP as ASSESS
from components.augment.step import STEP as AUGMENT
from components.encode.step import STEP as ENCODE
from components.finetune.step import STEP as FINETUNE
from components.runner import check_params
from components.step import AnyStep, Metrics, Paths
from retinalogos.errors import DataError
from retinalogos.lineage import MANIFEST

RESULTS = "results.json"


def run(params: AblateParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    home = outputs["ablation"]
    home.mkdir(parents=True)
    if not params.enabled:
        (home / RESULTS).write_text(json.dumps({"enabled": False}) + "\n", encoding="utf-8")
        return {"enabled": False}
    work = Path(params.work)
    parts = {name: work / name for name in ("latents", "generator", "log", "synthetic", "assessment")}
    for left in parts.values():  # by a run that was killed
        shutil.rmtree(left, ignore_errors=True)

    def again(step: AnyStep, made: str, given: dict[str, Path], *ports: str, **where: str) -> Metrics:
        settings = check_params(step, _manifest(inputs[made])["params"] | where, step.name)
        found: Metrics = step.run(settings, given, {port: parts[port] for port in ports})
        return found

    cohort = inputs["cohort"]
    encoded = {name: inputs[name] for name in ("cohort", "captions", "autoencoder", "known")}
    again(ENCODE, "latents", encoded, "latents")
    trained = {"latents": parts["latents"], "pretrained": inputs["pretrained"]}
    again(FINETUNE, "log", trained, "generator", "log", checkpoints=str(work / "checkpoints"))
    again(AUGMENT, "synthetic", {"cohort": cohort, "generator": parts["generator"]}, "synthetic")
    without = again(ASSESS, "assessment", {"cohort": cohort, "synthetic": parts["synthetic"]}, "assessment")
    results = json.loads((parts["assessment"] / RESULTS).read_text(encoding="utf-8"))
    text = json.dumps({"enabled": True, "without": results}, indent=2, ensure_ascii=False)
    (home / RESULTS).write_text(text + "\n", encoding="utf-8")
    for part in parts.values():
        shutil.rmtree(part)
    return {
        "enabled": True,
        **{f"with.{name}": value for name, value in _manifest(inputs["assessment"])["metrics"].items()},
        **{f"without.{name}": value for name, value in without.items()},
    }


def _manifest(folder: Path) -> dict[str, Any]:
    """What the runner wrote of the step that made a folder."""
    try:
        found: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{folder} holds no {MANIFEST}, which says how it was made; run its step by the runner"
        ) from None
    return found
