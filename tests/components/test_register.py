import base64
import contextlib
import dataclasses
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.exceptions import MlflowException
from PIL import Image
from storage_server import new_bucket, s3_server
from tiny_cube_generator import save_tiny_cube_generator
from tiny_generator import save_tiny_generator

from components import ROOT, cli
from components.cli.registry import resolve_model
from components.register.step import STEP, RegisterParams
from components.report.figures import Gate, judge
from retinalogos.cohort.shards import CohortWriter, encode_jpeg
from retinalogos.errors import DataError, UsageError
from retinalogos.generators.hyperspectral.pipeline import CubePipeline
from retinalogos.generators.text import TextToFundusPipeline
from retinalogos.provenance import generator_hash
from retinalogos.registry import moves
from retinalogos.storage import versions

NAME = "retinalogos-text"
PARAMS = RegisterParams(name=NAME, alias="champion", primary="realism", replace_incomparable=False, weights_at=None)
GATES = {
    "laterality": Gate(title="side", figure="assessment.eye", min=0.95, percent=True),
    "realism": Gate(title="FID", figure="assessment.fid", max=10),
}


@pytest.fixture(scope="module")
def generators(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("generators")
    return [save_tiny_generator(folder / str(seed), seed) for seed in range(3)]


@pytest.fixture
def registry(mlflow_store, tmp_path, monkeypatch) -> mlflow.MlflowClient:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    monkeypatch.setenv("RETINALOGOS_TRACKING", "on")
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    mlflow.set_tracking_uri(mlflow_store)
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
    assert len(moves(registry, NAME, "champion")) == 1, "nothing moved the second time"

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
    assert "report.gates.laterality failed: assessment.eye is 80 %, asked for at least 95 %" in said
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


def test_rollback_goes_back_to_the_version_before_and_the_one_left_is_not_promoted_again(
    registry, register, generators, capsys
):
    register(generators[0], fid=6.0)
    assert cli.main(["rollback", "--why", "no reason"]) == 2
    assert "is the first champion" in capsys.readouterr().err
    register(generators[1], fid=5.0)
    register(generators[2], fid=12.0)
    assert cli.main(["rollback", "--why", "discs are drawn twice"]) == 0
    assert "version 2 → 1" in capsys.readouterr().out
    assert champion(registry) == "1"
    assert "refused: version 2 was withdrawn: discs are drawn twice" in register(generators[1], fid=5.0)
    assert champion(registry) == "1"

    assert cli.main(["rollback", "--to", "3", "--why", "try"]) == 2
    assert "report.gates.realism failed: assessment.fid is 12" in capsys.readouterr().err
    assert cli.main(["rollback", "--to", "1", "--why", "again"]) == 2
    assert cli.main(["rollback", "--to", "9", "--why", "again"]) == 2
    assert cli.main(["rollback", "--to", "2", "--why", "they were not"]) == 0
    assert "withdrawn" not in registry.get_model_version(NAME, "2").tags

    history = moves(registry, NAME, "champion")
    assert [(move["from"], move["to"]) for move in history] == [(None, "1"), ("1", "2"), ("2", "1"), ("1", "2")]
    assert all("@" in move["by"] for move in history)
    assert history[2]["why"] == "rolled back from version 2: discs are drawn twice"


def test_a_version_says_what_made_it_and_its_lineage_goes_back_to_the_source(
    registry, register, generators, monkeypatch, capsys
):
    monkeypatch.setenv("RETINALOGOS_COMMIT", "abc123")
    monkeypatch.setenv("RETINALOGOS_IMAGE", f"example.org/retinalogos@sha256:{64 * '7'}")
    entry = {"step": "ingest", "version": "1", "params": {"reader": "toy", "source_fingerprint": "f00"}, "inputs": {}}
    made = {"step": "finetune", "version": "1", "params": {"steps": 5}, "inputs": {"cohort": "c0ffee"}, "metrics": {}}
    manifest = generators[0] / "manifest.json"
    manifest.write_text(json.dumps(made | {"stages": {"c0ffee": entry}}))
    register(generators[0], fid=5.0)
    manifest.unlink()
    capsys.readouterr()
    assert cli.main(["lineage", f"models:/{NAME}@champion"]) == 0
    told = capsys.readouterr().out
    for fact in (
        f"models:/{NAME}@champion: version 1",
        "cohort = cohort0",
        "commit = abc123",
        f"image = example.org/retinalogos@sha256:{64 * '7'}",
        "champion none → 1 by ",
        "generator: finetune 1",
        "  cohort c0ffee: ingest 1",
        'source_fingerprint = "f00"',
    ):
        assert fact in told, fact
    assert cli.main(["lineage", f"models:/{NAME}/7"]) == 2


def test_a_registered_generator_of_cubes_draws_its_cubes(registry, register, tmp_path):
    generator = save_tiny_cube_generator(tmp_path / "cubes")
    assert "promoted" in register(generator, fid=5.0)
    uri = f"models:/{NAME}@champion"
    (answer,) = mlflow.pyfunc.load_model(uri).predict(pd.DataFrame({"seed": [3]})).to_dict("records")
    with np.load(io.BytesIO(base64.b64decode(answer["cube"]))) as archive:
        np.testing.assert_array_equal(archive["cube"], CubePipeline.from_pretrained(generator)(seeds=[3])[0])
        assert json.loads(str(archive["provenance"]))["generator_sha256"] == generator_hash(generator)
    assert Image.open(io.BytesIO(base64.b64decode(answer["image"]))).size == (16, 16)
    assert generator_hash(resolve_model(uri)) == generator_hash(generator), "the command line finds it too"


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


@pytest.fixture
def published(monkeypatch, tmp_path):
    """Parameters by which weights are published in a bucket; the client of its store."""
    with s3_server() as environment:
        for name, value in {**environment, "AWS_DEFAULT_REGION": "us-east-1"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("RETINALOGOS_CACHE", str(tmp_path / "cache"))
        client, bucket = new_bucket()
        yield PARAMS.model_copy(update={"weights_at": f"s3://{bucket}/models"}), client, bucket


def test_large_weights_stay_in_the_store_and_the_model_holds_their_hash(
    registry, register, generators, published, tmp_path
):
    params, client, bucket = published
    register(generators[0], fid=5.0, params=params)
    uri = f"models:/{NAME}@champion"
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    assert not list(folder.rglob("*.safetensors"))
    [note] = folder.rglob("weights.json")
    assert json.loads(note.read_text()) == {
        "address": params.weights_at,
        "sha256": versions(params.weights_at)[-1].sha256,
    }

    drawn = mlflow.pyfunc.load_model(uri).predict(pd.DataFrame({"prompt": ["left eye"], "seed": [3]}))["image"][0]
    expected = TextToFundusPipeline.from_pretrained(generators[0])(["left eye"], seeds=[3])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn)))), expected[0])
    [cached] = (tmp_path / "cache").iterdir()
    assert resolve_model(uri) == cached
    assert generator_hash(cached) == generator_hash(generators[0])

    # Other weights in their place are refused, in the store as on the disk.
    shutil.rmtree(cached)
    largest = max(client.list_objects_v2(Bucket=bucket)["Contents"], key=lambda each: each["Size"])
    client.put_object(Bucket=bucket, Key=largest["Key"], Body=bytes(largest["Size"]))
    with pytest.raises(DataError, match="is not what was published"):
        mlflow.pyfunc.load_model(uri)
    assert not cached.exists()


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["in the model", "in a bucket"])
def test_the_scoring_server_answers_a_prompt_with_an_image(
    registry, register, generators, published, tmp_path, weights
):
    register(generators[0], fid=5.0, params=PARAMS if weights == "in the model" else published[0])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", f"models:/{NAME}@champion"]
    command += ["--env-manager", "local", "--port", str(port), "--workers", "1"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    server = subprocess.Popen(command, env={**os.environ, "PATH": path}, cwd=tmp_path, start_new_session=True)
    try:
        until = time.monotonic() + 600  # a busy machine is no failure
        while True:
            assert server.poll() is None
            assert time.monotonic() < until
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=60):
                break
            time.sleep(0.5)
        asked = {"dataframe_records": [{"prompt": "left eye", "seed": 3}]}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", json.dumps(asked).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            [row] = json.loads(answer.read())["predictions"]
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
    expected = TextToFundusPipeline.from_pretrained(generators[0])(["left eye"], seeds=[3])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(row["image"])))), expected[0])
