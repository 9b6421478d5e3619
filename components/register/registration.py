"""What every workflow's `register` does: a folder that follows from the inputs alone, then the MLflow registry.

The folder says gates, hashes, lineage and model card. What follows from the state of the registry (version number,
comparison with the champion) stands in the tags of the model version.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import Field

from components import ROOT, image, tracking
from components.report.figures import Verdict
from components.step import Metrics, Params, Paths
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import UsageError
from retinalogos.lineage import gather
from retinalogos.provenance import NOTICE, generator_hash, software
from retinalogos.registry import LINEAGE


class RegistrationParams(Params):
    """Parameters of every registration."""

    name: str = Field(pattern=r"^[\w.-]+$", description="of the registered model")
    alias: str = Field(pattern=r"^[\w-]+$", description="that a model that passes its gates gets")
    primary: str = Field(description="gate whose figure a challenger and the champion are compared by")
    replace_incomparable: bool = Field(description="a champion that was judged on other data gives way")
    # A place: the model names what lies there by its hash.
    weights_at: str | None = Field(
        exclude=True,
        pattern="^s3://",
        description="s3://bucket/prefix to publish the weights at; null: they travel in the model",
    )


@dataclass(frozen=True)
class Judged:
    """A generator, and how it was judged.

    Attributes:
        generator: diffusers-layout folder.
        cohort: that it was trained and judged on.
        verdicts: its gates.
        results: folders with the results.json that the gates read, by name; the manifest of the first says by what
            settings it was judged.
        card: template of the model card.
        serving: file that MLflow runs to serve the model, see :mod:`components.register.registry`.
        lock: DVC's lock file of the workflow, relative to the repository.
        requirements: packages that the serving model imports beside those that all do.
    """

    generator: Path
    cohort: Cohort
    verdicts: Sequence[Verdict]
    results: Mapping[str, Path]
    card: Path
    serving: Path
    lock: str
    requirements: Sequence[str] = ()


def register(params: RegistrationParams, judged: Judged, inputs: Paths, folder: Path) -> Metrics:
    """Writes the folder, and submits the generator to the registry unless tracking is off.

    Args:
        params: see there.
        judged: see there.
        inputs: of the step: the lineage is theirs.
        folder: to write.

    Raises:
        UsageError: no gate is called as ``params.primary``.
    """
    by_name = {verdict.name: verdict for verdict in judged.verdicts}
    if params.primary not in by_name:
        raise UsageError(f"register.primary: {params.primary!r} is none of the gates: {', '.join(by_name)}")
    cohort, generator = judged.cohort, generator_hash(judged.generator)
    hashes = {name: _sha256(path / "results.json") for name, path in judged.results.items()}
    folder.mkdir(parents=True)
    card = folder / "model_card.md"
    card.write_text(_model_card(params, judged, generator, hashes), encoding="utf-8")
    passed = all(verdict.passed for verdict in judged.verdicts)
    registration = {
        "name": params.name,
        "alias": params.alias,
        "generator_sha256": generator,
        "cohort": cohort.meta["name"],
        "cohort_sha256": cohort.meta["content_sha256"],
        "results_sha256": hashes,
        "gates_passed": passed,
        "gates": {verdict.name: verdict.says for verdict in judged.verdicts},
    }
    lineage = gather({name: path for name, path in inputs.items() if path.is_dir()})
    (folder / LINEAGE).write_text(json.dumps(lineage, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    (folder / "registration.json").write_text(json.dumps(registration, indent=2, ensure_ascii=False) + "\n")
    if tracking.is_on():
        _submit(params, judged, generator, card, by_name[params.primary], hashes)
    else:
        print("register: tracking is off (RETINALOGOS_TRACKING); nothing was put into the registry", flush=True)
    return {
        "gates_passed": sum(verdict.passed for verdict in judged.verdicts),
        "gates": len(judged.verdicts),
        "passed": passed,
        "generator_sha256": generator,
    }


def _submit(
    params: RegistrationParams,
    judged: Judged,
    generator: str,
    card: Path,
    primary: Verdict,
    hashes: Mapping[str, str],
) -> None:
    # Here and not above: MLflow takes a second to import, and `components list` needs none of it.
    from components.register import registry

    candidate = registry.Candidate(
        generator=judged.generator,
        generator_sha256=generator,
        weights_at=params.weights_at,
        model_card=card,
        serving=judged.serving,
        requirements=judged.requirements,
        judged_on=_judged_on(judged.cohort, next(iter(judged.results.values()))),
        verdicts=judged.verdicts,
        primary=primary,
        tags={
            "cohort": judged.cohort.meta["name"],
            "cohort_sha256": judged.cohort.meta["content_sha256"],
            **_software(ROOT / judged.lock),
            **{f"{name}_sha256": digest for name, digest in hashes.items()},
        },
    )
    decision = registry.submit(candidate, params.name, params.alias, params.replace_incomparable)
    print(f"register: {params.name} version {decision.version} {decision.reason}", flush=True)


def _software(lock: Path) -> dict[str, str]:
    """What made this version: package, commit, the state of DVC, and the container image by digest."""
    try:
        reference = image.image()
    except UsageError as error:  # named by a tag: it says so
        reference = str(error)
    return {
        "software": software(),
        "commit": tracking.commit() or "not known",
        "dvc_lock_sha256": _sha256(lock) if lock.is_file() else "none",
        "image": reference if image.is_published(reference) else "none: a working copy",
    }


def _judged_on(cohort: Cohort, assessment: Path) -> str:
    """Hash of the real cohort and of the parameters of the assessment: equal where figures can be compared."""
    manifest = assessment / "manifest.json"
    settings: Any = json.loads(manifest.read_text(encoding="utf-8"))["params"] if manifest.is_file() else None
    text = json.dumps([cohort.meta["content_sha256"], settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _model_card(params: RegistrationParams, judged: Judged, generator: str, hashes: Mapping[str, str]) -> str:
    # The cards of all workflows share their tables.
    environment = Environment(
        loader=FileSystemLoader([judged.card.parent, Path(__file__).parent]),
        autoescape=False,  # Markdown, not HTML
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(judged.card.name).render(
        name=params.name,
        alias=params.alias,
        notice=NOTICE,
        software=software(),
        config=json.loads((judged.generator / "model_index.json").read_text(encoding="utf-8")),
        generator=generator,
        cohort=judged.cohort.meta,
        gates=judged.verdicts,
        passed=sum(verdict.passed for verdict in judged.verdicts),
        results=hashes,
    )
