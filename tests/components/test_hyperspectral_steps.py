"""The hyperspectral steps one after another, at the size of the smoke preset, and the commands on what they made."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.cli import workflows
from components.runner import run_step
from components.search_cubes.figures import SPEED, front
from components.search_cubes.step import joining
from pipelines.graph import METRICS, Stage
from pipelines.hyperspectral import STAGES
from pipelines.params import Choices, compose
from retinalogos.arguments import Parser
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import DataError, UsageError
from retinalogos.provenance import NOTICE, read_png

SMALLER = (
    "ingest.n=24", "ingest.workers=1", "train_vqgan.steps=6", "train_vqvae.steps=6", "judge_cubes.resamples=5",
    "search_cubes.enabled=true", "search_cubes.compression=[8]", "search_cubes.base_channels=[8, 16]",
)  # fmt: skip


@pytest.fixture(scope="module")
def line(tmp_path_factory) -> tuple[Path, dict[str, dict[str, Any]]]:
    home = tmp_path_factory.mktemp("hyperspectral")
    values = compose(Choices(workflow="hyperspectral", preset="smoke", settings=SMALLER))
    by_name: dict[str, Stage] = {stage.name: stage for stage in STAGES}
    metrics = {}
    for stage in STAGES:
        section = values[stage.name]
        section |= {name: str(home / "work") for name in ("checkpoints", "work") if name in section}
        inputs = {port: home / by_name[source.stage].path(source.output) for port, source in stage.inputs.items()}
        outputs = {port: home / stage.path(port) for port in (*stage.outputs, METRICS)}
        metrics[stage.name] = run_step(stage.step, section, inputs, outputs, stage.name)
    return home, metrics


def test_every_figure_has_its_real_floor_and_interval(line) -> None:
    _, metrics = line
    judged = metrics["judge_cubes"]
    for name in ("fid_structures", "fid_random_conv", "ms_ssim_gap", "authentic", "band_correlation_gap"):
        assert judged[f"{name}_low"] <= judged[name] <= judged[f"{name}_high"]
        assert np.isfinite(judged[f"{name}_real"])
    assert {f"{model}_psnr" for model in ("autoencoder", "baseline")} <= judged.keys()
    for name in ("psnr", "frechet"):
        gap = judged[f"autoencoder_{name}"] - judged[f"baseline_{name}"]
        assert judged[f"against_baseline_{name}"] == pytest.approx(gap, abs=1e-6)
        assert judged[f"against_baseline_{name}_low"] <= judged[f"against_baseline_{name}_high"]
    assert {"divergence_veins", "divergence_arteries", "divergence_nerve_head"} <= judged.keys()
    assert metrics["train_vqgan"]["perplexity"] >= 1
    assert metrics["train_vqvae"]["parameters"] == metrics["train_vqgan"]["parameters"]


def test_distances_of_rebuilt_cubes_are_means_over_several_random_networks(line) -> None:
    home, metrics = line
    judged = json.loads((home / "metrics/hyperspectral/judgement/results.json").read_text())
    for port in ("autoencoder", "baseline"):
        each = judged[port]["frechet_by_network"]
        assert len(set(each)) == len(each) == 8
        assert metrics["judge_cubes"][f"{port}_frechet"] == pytest.approx(np.mean(each), rel=1e-4)


def test_each_source_of_pretraining_has_its_gain_with_an_interval(line) -> None:
    used = line[1]["use_cubes"]
    assert 0 <= used["auc_none"] <= 1
    for source in ("real", "synthetic", "both", "contrasts"):
        assert used[f"gain_{source}"] == pytest.approx(used[f"auc_{source}"] - used["auc_none"])
        assert {f"gain_{source}_low", f"gain_{source}_high", f"auc_every_label_{source}"} <= used.keys()


def test_files_of_three_kinds_become_a_cohort_with_the_labels_there_are(line, tmp_path) -> None:
    home, _ = line
    folder, wavelengths = tmp_path / "files", [500.0, 600.0, 700.0]
    folder.mkdir()
    files = [cube.values[[2, 5, 8]] for _, cube in Cohort(home / "data/hyperspectral/cohort").cubes()]
    for number, values in enumerate(files):
        if number % 3 == 0:
            np.savez(folder / f"{number:02}.npz", cube=values, wavelengths=np.array(wavelengths))
        elif number % 3 == 1:
            pages = [Image.fromarray(band) for band in values]
            said = "wavelengths: 500, 600, 700"
            pages[0].save(folder / f"{number:02}.tif", save_all=True, append_images=pages[1:], description=said)
        else:
            values.tofile(folder / f"{number:02}.raw")
            (folder / f"{number:02}.hdr").write_text(
                f"ENVI\nsamples = 32\nlines = 32\nbands = 3\ndata type = 12\ninterleave = bsq\n"
                f"wavelength = {{{', '.join(map(str, wavelengths))}}}\n"
            )
    choices = Choices(workflow="hyperspectral", preset="smoke", cohort="cubes", data=str(folder), settings=SMALLER)
    values = compose(choices)
    cohort = tmp_path / "cohort"
    metrics = run_step("ingest_cubes", values["ingest"], {}, {"cohort": cohort, METRICS: tmp_path / "m.json"}, "ingest")
    assert (metrics["rows"], metrics["bands"]) == (len(files), 3)
    assert Cohort(cohort).wavelengths == wavelengths
    inputs = {"cohort": cohort, "synthetic": home / "data/hyperspectral/synthetic"}
    used = run_step("use_cubes", values["use_cubes"], inputs, {"use": tmp_path / "use", METRICS: tmp_path / "m.json"})
    assert used == {"labelled": 0, "judged": 0}, "no cube has the label"


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
    assert set(json.loads((pictures / "results.json").read_text())) >= {"saturation_veins", "angle_veins"}


def test_the_grid_is_searched_and_goes_on_where_it_was(line, tmp_path) -> None:
    home, metrics = line
    found = json.loads((home / "metrics/hyperspectral/search/results.json").read_text())
    assert set(found["points"]) == {"f8-c4-b8", "f8-c4-b16"}
    for point in found["points"].values():
        assert point["cubes_per_second"] > 0
        assert point["fid_random_conv"] >= 0
    assert metrics["search_cubes"]["best_authentic"] in found["points"]
    with (home / "metrics/hyperspectral/search/grid.csv").open() as handle:
        assert [row["base_channels"] for row in csv.DictReader(handle)] == ["8", "16"]
    assert Image.open(home / "metrics/hyperspectral/search/pareto.png").width > 1000

    # The same by pods, one of which finds its autoencoder and points made, and a join that times them.
    values = compose(Choices(workflow="hyperspectral", preset="smoke", settings=SMALLER))["search_cubes"]
    values["work"] = str(home / "work")
    inputs = {
        port: home / next(s for s in STAGES if s.name == source.stage).path(source.output)
        for port, source in next(stage for stage in STAGES if stage.name == "search_cubes").inputs.items()
    }
    points = sorted((home / "work").glob("search-*/f8*"))
    made = [point.stat().st_mtime_ns for point in points]
    pod, joined = tmp_path / "pod", tmp_path / "joined"
    part = run_step("search_cubes", values | {"share": [0]}, inputs, {"search": pod, METRICS: tmp_path / "m.json"})
    assert part == {"enabled": True, "points": 2}
    whole = run_step(joining([pod]), values, inputs, {"search": joined, METRICS: tmp_path / "m.json"})
    assert whole.keys() == metrics["search_cubes"].keys()
    assert [point.stat().st_mtime_ns for point in points] == made
    with pytest.raises(DataError, match="1 parts hold 0 points of 2"):
        run_step(joining([tmp_path]), values, inputs, {"search": joined, METRICS: tmp_path / "m.json"})


def test_the_front_holds_what_no_other_beats() -> None:
    points = [
        {SPEED: speed, "fid_random_conv": quality, "authentic": 1 / quality}
        for speed, quality in ((10, 5.0), (8, 6.0), (5, 2.0), (5, 3.0), (1, 2.5), (0.5, 1.0))
    ]
    for measure in ("fid_random_conv", "authentic"):
        assert front(points, measure) == [0, 2, 5]
    assert front([{SPEED: 2, "authentic": None}, {SPEED: 1, "authentic": 0.5}], "authentic") == [0, 1]


def test_the_page_shows_figures_pictures_and_gates(line) -> None:
    home, metrics = line
    page = (home / "metrics/hyperspectral/report/index.html").read_text()
    assert "data:image/gif;base64," in page
    for words in ("Hyperspectral FID", "VQ-VAE, no adversary", "Gain", "Quality against sampling speed"):
        assert words in page
    assert page.count("data:image/png;base64,") >= 5
    gates = json.loads((home / "metrics/hyperspectral/report/gates.json").read_text())
    assert {gate["name"] for gate in gates} == {"realism", "spectra", "authentic", "autoencoder"}
    assert metrics["report"]["gates"] == 4
    assert all(gate["value"] is not None and gate["limit"] is not None for gate in gates)


def test_the_generator_is_registered_with_its_card(line) -> None:
    home, metrics = line
    folder = home / "metrics/hyperspectral/registration"
    card = (folder / "model_card.md").read_text()
    assert "hyperspectral cubes" in card
    assert "32 × 32 pixels" in card
    assert "| network | UNet2DModel |\n| autoencoder | CubeAutoencoder |" in card
    assert json.loads((folder / "registration.json").read_text())["gates_passed"] == metrics["register"]["passed"]


def run(*words: str) -> None:
    whole = Parser(prog="retinalogos")
    workflows.add_commands(whole.add_subparsers())
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
