"""Puts the generator into the MLflow registry and makes it champion if its gates allow.

The output folder says what follows from the inputs alone: gates, hashes, model card. What follows from the state of
the registry (version number, comparison with the champion) stands in the tags of the model version.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import Field

from components import ROOT, image, tracking
from components.register.kinds import kind_of, read_index
from components.report.figures import Verdict
from components.step import Metrics, Params, Paths, Port, Step
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import DataError, UsageError
from retinalogos.lineage import gather
from retinalogos.provenance import NOTICE, generator_hash, software
from retinalogos.registry import LINEAGE


class RegisterParams(Params):
    """Parameters of ``register``; the gates themselves are ``report.gates``."""

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


def run(params: RegisterParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    cohort = Cohort(inputs["cohort"])
    verdicts = _read_verdicts(inputs["report"] / "gates.json")
    by_name = {verdict.name: verdict for verdict in verdicts}
    if params.primary not in by_name:
        raise UsageError(f"register.primary: {params.primary!r} is none of report.gates: {', '.join(by_name)}")
    generator = generator_hash(inputs["generator"])
    hashes = {name: _sha256(inputs[name] / "results.json") for name in ("assessment", "classification")}
    folder = outputs["registration"]
    folder.mkdir(parents=True)
    card = folder / "model_card.md"
    card.write_text(_model_card(params, inputs["generator"], generator, cohort, verdicts, hashes), encoding="utf-8")
    passed = all(verdict.passed for verdict in verdicts)
    registration = {
        "name": params.name,
        "alias": params.alias,
        "generator_sha256": generator,
        "cohort": cohort.meta["name"],
        "cohort_sha256": cohort.meta["content_sha256"],
        "results_sha256": hashes,
        "gates_passed": passed,
        "gates": {verdict.name: verdict.says for verdict in verdicts},
    }
    lineage = gather({name: path for name, path in inputs.items() if path.is_dir()})
    (folder / LINEAGE).write_text(json.dumps(lineage, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    (folder / "registration.json").write_text(json.dumps(registration, indent=2, ensure_ascii=False) + "\n")
    if tracking.is_on():
        _submit(params, inputs, cohort, generator, card, verdicts, by_name[params.primary], hashes)
    else:
        print("register: tracking is off (RETINALOGOS_TRACKING); nothing was put into the registry", flush=True)
    return {
        "gates_passed": sum(verdict.passed for verdict in verdicts),
        "gates": len(verdicts),
        "passed": passed,
        "generator_sha256": generator,
    }


def _submit(
    params: RegisterParams,
    inputs: Paths,
    cohort: Cohort,
    generator: str,
    card: Path,
    verdicts: list[Verdict],
    primary: Verdict,
    hashes: dict[str, str],
) -> None:
    # Here and not above: MLflow takes a second to import, and `components list` needs none of it.
    from components.register import registry

    candidate = registry.Candidate(
        generator=inputs["generator"],
        generator_sha256=generator,
        weights_at=params.weights_at,
        model_card=card,
        judged_on=_judged_on(cohort, inputs["assessment"]),
        verdicts=verdicts,
        primary=primary,
        tags={
            "cohort": cohort.meta["name"],
            "cohort_sha256": cohort.meta["content_sha256"],
            **_software(),
            **{f"{name}_sha256": digest for name, digest in hashes.items()},
        },
    )
    decision = registry.submit(candidate, params.name, params.alias, params.replace_incomparable)
    print(f"register: {params.name} version {decision.version} {decision.reason}", flush=True)


def _software() -> dict[str, str]:
    """What made this version: package, commit, the state of DVC, and the container image by digest."""
    # The main line's and those of other workflows.
    locks = [path for path in (ROOT / "dvc.lock", *sorted(ROOT.glob("workflows/*/dvc.lock"))) if path.is_file()]
    try:
        reference = image.image()
    except UsageError as error:  # named by a tag: it says so
        reference = str(error)
    return {
        "software": software(),
        "commit": tracking.commit() or "not known",
        "dvc_lock_sha256": hashlib.sha256(b"".join(path.read_bytes() for path in locks)).hexdigest()
        if locks
        else "none",
        "image": reference if image.is_published(reference) else "none: a working copy",
    }


def _judged_on(cohort: Cohort, assessment: Path) -> str:
    """Hash of the real cohort and of the parameters of the assessment: equal where figures can be compared."""
    manifest = assessment / "manifest.json"
    settings: Any = json.loads(manifest.read_text(encoding="utf-8"))["params"] if manifest.is_file() else None
    text = json.dumps([cohort.meta["content_sha256"], settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _read_verdicts(path: Path) -> list[Verdict]:
    try:
        return [Verdict(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        raise DataError(f"{path} not found; run the step report again") from None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _model_card(
    params: RegisterParams,
    folder: Path,
    generator: str,
    cohort: Cohort,
    verdicts: list[Verdict],
    hashes: dict[str, str],
) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown, not HTML
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(kind_of(folder).card).render(
        name=params.name,
        alias=params.alias,
        notice=NOTICE,
        software=software(),
        config=read_index(folder),
        generator=generator,
        cohort=cohort.meta,
        gates=verdicts,
        passed=sum(verdict.passed for verdict in verdicts),
        **hashes,
    )


STEP = Step(
    name="register",
    summary="MLflow model version with its gates; the alias champion moves if they pass",
    params=RegisterParams,
    run=run,
    inputs={
        "cohort": Port("real cohort that the generator was trained and judged on", "Dataset"),
        "generator": Port("generator, whose model_index.json says of what kind it is", "Model"),
        "assessment": Port("results.json of how its pictures were judged"),
        "classification": Port("results.json of what they are good for"),
        "report": Port("folder with gates.json"),
    },
    outputs={"registration": Port("registration.json, model_card.md and lineage.json")},
)
