"""Puts the cascade of vessel maps into the MLflow registry and makes it champion if its gates allow."""

from pathlib import Path

from pydantic import Field

from components.register.registration import Judged, RegistrationParams, register
from components.report.figures import Gate, judge, read_results
from components.step import Metrics, Paths, Port, Step
from retinalogos.cohort.shards import Cohort

SECTION = "register_vessel_map.gates"


class RegisterVesselMapParams(RegistrationParams):
    """Parameters of ``register_vessel_map``."""

    gates: dict[str, Gate] = Field(
        min_length=1, description="limits that the models must keep; figures begin with `judgement` or `use`"
    )


def run(params: RegisterVesselMapParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    # Here and not above: torch takes seconds to import.
    from retinalogos.generators.vessel_map.cascade import PARTS, bundle

    results = {name: inputs[name] for name in ("judgement", "use")}
    figures = {name: read_results(folder) for name, folder in results.items()}
    verdicts = [judge(name, gate, figures, SECTION) for name, gate in params.gates.items()]
    bundle({part: inputs[part] for part in PARTS}, outputs["cascade"])
    here = Path(__file__).parent
    judged = Judged(
        outputs["cascade"],
        Cohort(inputs["cohort"]),
        verdicts,
        results,
        here / "vessel_map_card.md.j2",
        here / "serving_model.py",
        "workflows/vessel_map/dvc.lock",
        ("opencv-python-headless", "scipy"),
    )
    return register(params, judged, inputs, outputs["registration"])


STEP = Step(
    name="register_vessel_map",
    summary="MLflow model version of the cascade with its gates; the alias champion moves if they pass",
    params=RegisterVesselMapParams,
    run=run,
    inputs={
        "cohort": Port("real cohort that the models were trained and judged on", "Dataset"),
        "masks": Port("model that draws masks", "Model"),
        "paint": Port("model that paints photographs", "Model"),
        "enlarge": Port("model that enlarges", "Model"),
        "judgement": Port("results.json of judge_vessels"),
        "use": Port("results.json of use_vessels"),
    },
    outputs={
        "registration": Port("registration.json, model_card.md and lineage.json"),
        "cascade": Port("the three models as one folder, with model_index.json", "Model"),
    },
)
