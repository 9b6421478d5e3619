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
from components.runner import as_made
from components.step import AnyStep, Metrics, Paths
from retinalogos.lineage import how_made

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
    launcher = params.launcher.model_dump(mode="json")

    def again(step: AnyStep, made: str, given: dict[str, Path], *ports: str, **where: Any) -> Metrics:
        found: Metrics = step.run(as_made(step, inputs[made], **where), given, {port: parts[port] for port in ports})
        return found

    cohort = inputs["cohort"]
    encoded = {name: inputs[name] for name in ("cohort", "captions", "autoencoder", "known")}
    again(ENCODE, "latents", encoded, "latents", shards_at=None)
    trained = {"latents": parts["latents"], "pretrained": inputs["pretrained"]}
    again(FINETUNE, "log", trained, "generator", "log", checkpoints=str(work / "checkpoints"), launcher=launcher)
    again(AUGMENT, "synthetic", {"cohort": cohort, "generator": parts["generator"]}, "synthetic")
    without = again(ASSESS, "assessment", {"cohort": cohort, "synthetic": parts["synthetic"]}, "assessment")
    results = json.loads((parts["assessment"] / RESULTS).read_text(encoding="utf-8"))
    text = json.dumps({"enabled": True, "without": results}, indent=2, ensure_ascii=False)
    (home / RESULTS).write_text(text + "\n", encoding="utf-8")
    for part in parts.values():
        shutil.rmtree(part)
    return {
        "enabled": True,
        **{f"with.{name}": value for name, value in how_made(inputs["assessment"])["metrics"].items()},
        **{f"without.{name}": value for name, value in without.items()},
    }
