import base64
import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.exceptions import MlflowException
from PIL import Image

from components import ROOT
from components.register.step import STEP, RegisterParams
from components.report.figures import Gate, judge
from retinalogos import cli
from retinalogos.cohort.shards import CohortWriter, encode_jpeg
from retinalogos.errors import UsageError
from retinalogos.generators.text import TextToFundusPipeline
from retinalogos.provenance import generator_hash

sys.path.insert(0, str(ROOT / "tests"))
from tiny_generator import save_tiny_generator

NAME = "retinalogos-text"
PARAMS = RegisterParams(name=NAME, alias="champion", primary="realism", replace_incomparable=False)
GATES = {
    "laterality": Gate(title="side", figure="assessment.eye", min=0.95, percent=True),
    "realism": Gate(title="FID", figure="assessment.fid", max=10),
}


@pytest.fixture(scope="module")
def generators(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("generators")
    return [save_tiny_generator(folder / str(seed), seed) for seed in range(3)]


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory) -> Path:
    """A fresh MLflow database; its hundred migrations take seconds, so that each test gets a copy."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def registry(empty_store, tmp_path, monkeypatch) -> mlflow.MlflowClient:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("RETINALOGOS_TRACKING", "on")
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("register", (tmp_path / "mlruns").as_uri()))
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(None)


@pytest.fixture
def register(tmp_path, capsys):
    """Runs the step on a generator with these figures; the answer is what it prints."""
    count = iter(range(100))

    def call(generator: Path, fid: float, eye: float = 0.97, cohort: int = 0, params: RegisterParams = PARAMS) -> str:
        base = tmp_path / f"run{next(count)}"
        base.mkdir()
        inputs = {name: base / name for name in STEP.inputs} | {"generator": generator}
        image = encode_jpeg(np.full((32, 32, 3), cohort, np.uint8))
        with CohortWriter(inputs["cohort"], f"cohort{cohort}") as writer:
            writer.add(
                {
                    "image_id": "0" * 16,
                    "patient_id": "p",
                    "split": "train",
                    "source": "toy",
                    "licence": "CC0-1.0",
                    "width": 32,
                    "height": 32,
                    "sha256": "0",
                    "image": {"bytes": image, "path": "0.jpg"},
                }
            )
        results = {"assessment": {"fid": fid, "eye": eye}, "classification": {}}
        for name, figures in results.items():
            inputs[name].mkdir()
            (inputs[name] / "results.json").write_text(json.dumps(figures))
        inputs["report"].mkdir()
        verdicts = [dataclasses.asdict(judge(name, gate, results)) for name, gate in GATES.items()]
        (inputs["report"] / "gates.json").write_text(json.dumps(verdicts))
        metrics = STEP.run(params, inputs, {"registration": base / "registration"})
        assert metrics["generator_sha256"] == generator_hash(generator)
        call.output = base / "registration"
        return capsys.readouterr().out

    return call


def champion(client: mlflow.MlflowClient) -> str | None:
    try:
        return str(client.get_model_version_by_alias(NAME, "champion").version)
    except MlflowException:
        return None


def test_alias_moves_only_forwards(registry, register, generators):
    said = register(generators[0], fid=12.0)
    assert "refused" in said
    assert "assessment.fid is 12, asked for at most 10" in said
    assert champion(registry) is None

    assert "promoted" in register(generators[1], fid=5.0)
    assert champion(registry) == "2"
    assert "champion already" in register(generators[1], fid=5.0)

    said = register(generators[2], fid=6.0)
    assert "worse than the champion" in said
    assert "6" in said
    assert "5" in said
    assert champion(registry) == "2"

    assert "promoted" in register(generators[2], fid=5.0), "as good is no worse"
    assert champion(registry) == "3"
    assert len(registry.search_model_versions(f"name='{NAME}'")) == 3, "a generator is registered once"


def test_a_failed_gate_is_named_and_leaves_the_champion(registry, register, generators):
    register(generators[0], fid=5.0)
    said = register(generators[1], fid=1.0, eye=0.8)
    assert "laterality failed: assessment.eye is 80 %, asked for at least 95 %" in said
    assert champion(registry) == "1"
    tags = registry.get_model_version(NAME, "2").tags
    assert tags["gates_passed"] == "false"
    assert "failed" in tags["gate.laterality"]
    assert "passed" in tags["gate.realism"]
    assert tags["decision"].startswith("refused")


def test_other_data_cannot_be_compared_and_needs_a_decision(registry, register, generators):
    register(generators[0], fid=5.0, cohort=0)
    assert "other data" in register(generators[1], fid=1.0, cohort=1)
    assert champion(registry) == "1"
    forced = PARAMS.model_copy(update={"replace_incomparable": True})
    assert "promoted" in register(generators[1], fid=1.0, cohort=1, params=forced)
    assert champion(registry) == "2"


def test_registered_model_draws_what_the_generator_draws_and_pickles_nothing(registry, register, generators, tmp_path):
    register(generators[0], fid=5.0)
    uri = f"models:/{NAME}@champion"
    model = mlflow.pyfunc.load_model(uri)
    prompts = pd.DataFrame({"prompt": ["left eye", "right eye"], "seed": [3, 4]})
    images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(i)))) for i in model.predict(prompts)["image"]]
    expected = TextToFundusPipeline.from_pretrained(generators[0])(["left eye", "right eye"], seeds=[3, 4])
    np.testing.assert_array_equal(images, expected)
    assert len(model.predict(prompts[["prompt"]])) == 2, "seed is optional"
    with pytest.raises(MlflowException, match="prompt"):
        model.predict(pd.DataFrame({"text": ["left eye"]}))

    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    names = [path.name for path in folder.rglob("*") if path.is_file()]
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".bin", ".pt", ".pth", ".ckpt"))]
    assert "model_card.md" in names

    out = tmp_path / "out"
    assert cli.main(["generate", "left eye", "--model", uri, "--n", "2", "--seed", "3", "--out", str(out)]) == 0
    [drawn] = out.glob("*-seed3.png")
    np.testing.assert_array_equal(np.asarray(Image.open(drawn)), expected[0])


def test_output_follows_from_the_inputs_alone(registry, register, generators, monkeypatch):
    def content() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in register.output.iterdir()}

    register(generators[0], fid=5.0)
    first = content()
    register(generators[0], fid=5.0)
    assert content() == first
    monkeypatch.setenv("RETINALOGOS_TRACKING", "off")
    assert "nothing was put into the registry" in register(generators[0], fid=5.0)
    assert content() == first
    card = first["model_card.md"].decode()
    for fact in ("not for diagnosis", generator_hash(generators[0]), "cohort0", "CC0-1.0", "| 5 |", "minilm"):
        assert fact in card


def test_primary_must_be_a_gate(registry, register, generators):
    with pytest.raises(UsageError, match=r"register\.primary"):
        register(generators[0], fid=5.0, params=PARAMS.model_copy(update={"primary": "beauty"}))


def test_defaults_are_valid():
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert RegisterParams(**params["register"]).primary in params["report"]["gates"]


@pytest.mark.slow
def test_mlflow_models_predict_returns_an_image(registry, register, generators, tmp_path):
    register(generators[0], fid=5.0)
    asked = tmp_path / "prompts.csv"
    asked.write_text("prompt,seed\nleft eye,3\n")
    answer = tmp_path / "answer.json"
    command = [sys.executable, "-m", "mlflow", "models", "predict", "-m", f"models:/{NAME}@champion"]
    command += ["--env-manager", "local", "-i", str(asked), "-t", "csv", "-o", str(answer)]
    subprocess.run(command, check=True, env=dict(os.environ), cwd=tmp_path)
    [row] = json.loads(answer.read_text())["predictions"]
    assert Image.open(io.BytesIO(base64.b64decode(row["image"]))).size == (32, 32)
