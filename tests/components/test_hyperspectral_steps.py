"""The hyperspectral steps one after another, at the size of the smoke preset, and the commands on what they made."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.runner import check_params, load_step
from pipelines.graph import Stage
from pipelines.hyperspectral import STAGES
from pipelines.params import Choices, compose
from retinalogos.arguments import Parser
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import UsageError
from retinalogos.generators.hyperspectral import command
from retinalogos.provenance import NOTICE, read_png

SMALLER = ("ingest.n=24", "ingest.workers=1", "train_vqgan.steps=6", "train_vqvae.steps=6", "judge_cubes.resamples=5")


@pytest.fixture(scope="module")
def line(tmp_path_factory) -> tuple[Path, dict[str, dict[str, Any]]]:
    home = tmp_path_factory.mktemp("hyperspectral")
    values = compose(Choices(workflow="hyperspectral", preset="smoke", settings=SMALLER))
    by_name: dict[str, Stage] = {stage.name: stage for stage in STAGES}
    metrics = {}
    for stage in STAGES:
        section = values[stage.name]
        if "checkpoints" in section:
            section["checkpoints"] = str(home / "work")
        step = load_step(stage.step)
        inputs = {port: home / by_name[source.stage].path(source.output) for port, source in stage.inputs.items()}
        outputs = {port: home / path for port, path in stage.outputs.items()}
        for path in outputs.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        metrics[stage.name] = dict(step.run(check_params(step, section, stage.name), inputs, outputs))
    return home, metrics


def test_every_figure_has_its_real_floor_and_interval(line) -> None:
    _, metrics = line
    judged = metrics["judge_cubes"]
    for name in ("fid_structures", "fid_random_conv", "ms_ssim_gap", "authentic", "band_correlation_gap"):
        assert judged[f"{name}_low"] <= judged[name] <= judged[f"{name}_high"]
        assert np.isfinite(judged[f"{name}_real"])
    assert {f"{model}_psnr" for model in ("autoencoder", "baseline")} <= judged.keys()
    assert {"divergence_veins", "divergence_arteries", "divergence_nerve_head"} <= judged.keys()
    assert metrics["train_vqgan"]["perplexity"] >= 1
    assert metrics["train_vqvae"]["parameters"] == metrics["train_vqgan"]["parameters"]


def test_each_source_of_pretraining_has_its_gain_with_an_interval(line) -> None:
    used = line[1]["use_cubes"]
    assert 0 <= used["auc_none"] <= 1
    for source in ("real", "synthetic", "both"):
        assert used[f"gain_{source}"] == pytest.approx(used[f"auc_{source}"] - used["auc_none"])
        assert {f"gain_{source}_low", f"gain_{source}_high"} <= used.keys()


def test_synthetic_cubes_say_what_they_are(line) -> None:
    home, metrics = line
    rows = Cohort(home / "data/hyperspectral/synthetic").table().to_pylist()
    assert len(rows) == metrics["draw_synthetic_cubes"]["drawn"] == 9
    assert {row["source"] for row in rows} == {"synthetic"}
    assert all(row["generator"].startswith("CubePipeline:") and row["seed"] is not None for row in rows)
    pictures = home / "metrics/hyperspectral/judgement"
    assert read_png(pictures / "colour.png")["synthetic"] == "true"
    assert NOTICE.encode() in (pictures / "sweep.gif").read_bytes()
    assert Image.open(pictures / "sweep.gif").n_frames == 30
    assert (pictures / "spectra.png").is_file()
    assert set(json.loads((pictures / "judgement.json").read_text())) >= {"saturation_veins", "angle_veins"}


def run(*words: str) -> None:
    whole = Parser(prog="retinalogos")
    command.add_commands(whole.add_subparsers())
    arguments = whole.parse_args(["hyperspectral", *words])
    arguments.run(arguments)


def test_the_commands_draw_and_show(line, tmp_path) -> None:
    home, _ = line
    generator = str(home / "models/hyperspectral/generator")
    run("generate", "--model", generator, "--n", "2", "--seed", "5", "--steps", "2", "--out", str(tmp_path))
    drawn = np.load(tmp_path / "cube-seed5.npz")
    assert drawn["cube"].shape == (16, 32, 32)
    said = read_png(tmp_path / "cube-seed6.png")
    assert (said["seed"], said["synthetic"]) == ("6", "true")
    assert len((tmp_path / "index.jsonl").read_text().splitlines()) == 2
    cohort = f"{home / 'data/hyperspectral/cohort'}:1"
    shown = tmp_path / "shown"
    run("show", str(tmp_path / "cube-seed5.npz"), "--against", cohort, "--at", "0.5", "0.5", "--out", str(shown))
    assert len(list(shown.glob("band-*.png"))) == 16
    assert {"colour.png", "sweep.gif", "spectra.png"} <= {path.name for path in shown.iterdir()}
    for wrong, words in (
        (f"{cohort}999", "has no cube number"),
        ("nothing.npz", "neither a file"),
    ):
        with pytest.raises(UsageError, match=words):
            run("show", wrong, "--out", str(shown))
    with pytest.raises(UsageError, match="from 0 to 1"):
        run("show", cohort, "--at", "3", "0.5", "--out", str(shown))
    with pytest.raises(UsageError, match=r"model_index\.json"):
        run("generate", "--model", str(tmp_path), "--out", str(tmp_path))
