"""Puts the generator into the MLflow registry and makes it champion if its gates allow; see registration.py."""

import json
from pathlib import Path

from components.register.registration import Judged, RegistrationParams, register
from components.report.figures import Verdict
from components.step import Metrics, Paths, Port, Step
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import DataError


class RegisterParams(RegistrationParams):
    """Parameters of ``register``; the gates themselves are ``report.gates``."""


def run(params: RegisterParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    here = Path(__file__).parent
    judged = Judged(
        inputs["generator"],
        Cohort(inputs["cohort"]),
        _read_verdicts(inputs["report"] / "gates.json"),
        {name: inputs[name] for name in ("assessment", "classification")},
        here / "text_card.md.j2",
        here / "serving_model.py",
        "dvc.lock",
    )
    return register(params, judged, inputs, outputs["registration"])


def _read_verdicts(path: Path) -> list[Verdict]:
    try:
        return [Verdict(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        raise DataError(f"{path} not found; run the step report again") from None


STEP = Step(
    name="register",
    summary="MLflow model version with its gates; the alias champion moves if they pass",
    params=RegisterParams,
    run=run,
    inputs={
        "cohort": Port("real cohort that the generator was trained and judged on", "Dataset"),
        "generator": Port("generator of stage 3", "Model"),
        "assessment": Port("results.json of assess"),
        "classification": Port("results.json of classify"),
        "report": Port("folder with gates.json"),
    },
    outputs={"registration": Port("registration.json, model_card.md and lineage.json")},
)
