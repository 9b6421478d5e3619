"""Benchmarks at toy size: that they run, and that both sides of a comparison do the same work."""

import argparse
import contextlib
import re
from functools import partial

import cv2
import numpy as np
import pytest
import torch
import yaml
from allocation import MEBIBYTE, allocate
from PIL import Image
from tiny_generator import save_tiny_generator

from benchmarks import (
    autoencoder,
    copies,
    learning,
    loader,
    next_dit,
    paired,
    pretrain,
    purification,
    quality,
    sampling,
)
from benchmarks.paired import Seconds
from components import ROOT
from retinalogos.cohort.shards import Cohort, CohortWriter, encode_png
from retinalogos.errors import UsageError
from retinalogos.generators.text.latents import LatentWriter


def test_ways_take_turns_and_every_other_turn_goes_backwards():
    ran = []
    times = paired.in_turn({name: partial(paired.seconds, partial(ran.append, name)) for name in "ab"}, turns=2)
    assert ran == list("ababba")
    assert {name: len(own) for name, own in times.items()} == {"a": 2, "b": 2}


def test_a_ratio_is_the_median_over_turns_and_not_that_of_medians(capsys):
    ours = [Seconds(1, 2), Seconds(10, 20), Seconds(1, 2)]
    theirs = [Seconds(3, 2), Seconds(20, 20), Seconds(4, 4)]
    paired.table({"ours": ours, "theirs": theirs}, 10, "images")
    heading, first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["ours", "1.000", "2.000", "10.0", "1.00", "1.00"]
    assert second.split() == ["theirs", "4.000", "4.000", "2.5", "3.00", "1.00"]
    assert "images/s" in heading


def test_a_way_has_a_process_of_its_own(capsys):
    here = b"x" * (256 * MEBIBYTE)
    with contextlib.closing(paired.Process(allocate, "", 64)) as way:
        assert 0 < way.seconds().processor < 60
        told = way.memory()
    assert 60 <= told.peak - told.start < 128
    assert told.peak * MEBIBYTE < len(here)
    paired.compare(allocate, ["little", "more"], 32, turns=1, items=1, unit="blocks")
    assert capsys.readouterr().out.count("MiB at the peak") == 2


def test_next_dit_shows_every_precision_and_says_where_bfloat16_tells_nothing(capsys, monkeypatch, no_processes):
    monkeypatch.setattr(next_dit, "reason_not_to_compile", lambda: "no compiler")
    next_dit.main(["--width", "128", "--layers", "1", "--size", "4", "--batch", "1", "--turns", "1"])
    out = capsys.readouterr().out
    assert "torch.compile does not run here: no compiler" in out
    for name in ("ours float32", "ours bfloat16", "diffusers float32", "diffusers bfloat16"):
        assert f"\n{name} " in "\n" + out
    share = re.search(r"their share of a step, ours (?:float32|bfloat16): (\d+) %", out)
    assert share
    assert 0 < int(share[1]) < 100
    native = next_dit.compute_dtype("auto", next_dit.torch.device("cpu")) == next_dit.torch.bfloat16
    assert ("no bfloat16 units" in out) != native


def test_without_guidance_both_pipelines_draw_the_same_pictures():
    options = argparse.Namespace(width=128, layers=1, size=32, batch=2, steps=3, guidance=1.0, threads=1)
    ours, theirs = (sampling.make(name, options)().astype(int) for name in ("ours float32", "LuminaPipeline float32"))
    assert ours.shape == (2, 32, 32, 3)
    assert ours.std() > 10
    assert np.abs(ours - theirs).max() <= 1


def test_autoencoder_tells_what_each_side_keeps(capsys, no_processes):
    toy = "--size 32 --channels 8 --batch 1 --turns 1 --eyes 16 --judged 4 --widths 16 16 16 16 --minutes 0.01 0.02"
    autoencoder.main(toy.split())
    out = capsys.readouterr().out
    assert "AutoencoderKL 16-16-16-16" in out
    assert re.search(r"other eyes, ours: PSNR \d+\.\d dB, -?\d+ %", out)
    looks = re.findall(r"KL 4-4-4-4 after 0.0([12]) minutes, (\d+) steps of 4: PSNR \d+\.\d dB, -?\d+ %", out)
    assert [minutes for minutes, _ in looks] == ["1", "2"]
    assert int(looks[1][1]) > int(looks[0][1]) > 0


def test_loader_reads_folders_of_any_number_of_shards(capsys, no_processes):
    loader.main(["--shards", "2", "6", "--images", "3", "--batch", "4", "--batches", "2", "--turns", "1"])
    out = capsys.readouterr().out
    assert "2 shards" in out
    assert "6 shards" in out


def test_pretrain_runs_both_ways_from_pictures_to_weights(capsys, monkeypatch, no_processes):
    monkeypatch.setattr(pretrain, "Process", no_processes)
    arguments = "--eyes 20 --size 32 --epochs 1 --batch 8 --width 128 --layers 1 --turns 1 --threads 1"
    pretrain.main(arguments.split())
    out = capsys.readouterr().out
    assert "\nencode and pretrain " in out
    assert "\npretrain " in out
    assert out.count("\ndiffusers' pattern ") == 2
    assert "\npretrain: 300 MiB at the peak, 200 beside the modules" in out


def test_quality_judges_every_way_beside_the_floor(tmp_path, capsys):
    data = {name: tmp_path / "data" / name for name in ("cohort", "synthetic")}
    generator = save_tiny_generator(tmp_path / "models" / "generator")
    pretrain.run_step("ingest", {}, {"cohort": data["cohort"]}, n=80, size=64, workers=1)
    inputs = {"cohort": data["cohort"], "generator": generator}
    settings = {"per_grade": 2, "per_glaucoma": 2, "quality_quantile": 0.0, "duplicate_distance": 0}
    pretrain.run_step("augment", inputs, {"synthetic": data["synthetic"]}, **settings)
    assess = yaml.safe_load((ROOT / "params.yaml").read_text())["assess"]
    assess |= {"size": 32, "resamples": 10, "distance_resamples": 5, "kernel_subset_size": 5, "neighbours": 2}
    assess["judge"] |= {"size": 64, "steps": 4, "validate_every": 4, "widths": [8, 8], "features": 16}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "params.yaml").write_text(yaml.safe_dump({"assess": assess}))

    sheet, plot = tmp_path / "sheet.png", tmp_path / "plot.png"
    varied = ["--guidance", "1", "6", "--steps", "2", "3", "--solvers", "euler", "heun", "--sheet", str(sheet)]
    varied += ["--plot", str(plot)]
    quality.main(["--run", str(tmp_path), "--images", "10", "--size", "64", *varied])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert {len(row) for row in cells} == {7}
    names = [row[0] for row in cells[2:]]
    curves = ["guidance 1", "guidance 6", "2 steps euler", "3 steps euler", "2 steps heun", "3 steps heun"]
    assert names == ["real test eyes", str(generator), *curves]
    assert cells[2][2] == "1.0", "the floor is once the floor"
    assert [row[6] for row in cells[2:7]] == ["", "4", "2", "4", "4"], "guidance evaluates twice"
    distances = [float(row[1].split()[0]) for row in cells[2:]]
    assert min(distances[1:]) > distances[0], "noise is farther from eyes than eyes are"
    assert len(set(distances)) > 4, "settings matter"
    assert Image.open(sheet).height > Image.open(sheet).width / 2
    assert Image.open(plot).width > Image.open(plot).height
    with pytest.raises(SystemExit):
        quality.main(["--run", str(tmp_path), "--plot", str(plot)])


def test_learning_starts_at_the_priors_own_error_and_compares_every_candidate(tmp_path, capsys):
    draw = torch.Generator().manual_seed(0)
    meta = {"empty_text": 0, "channels": 4, "latent_size": 8, "text_dim": 12}
    meta["representation"] = {"channels": 3, "grid": 2}
    with LatentWriter(tmp_path, meta) as writer:
        for i in range(80):
            number = writer.add_text(str(i), torch.randn(3, 12, generator=draw))
            latents = torch.randn(4, 8, 8, generator=draw)
            split = "validation" if i % 8 == 0 else "train"
            side = ("left", "right")[i % 2]
            writer.add_image(str(i), split, side, latents, [number], [number], latents[:3, :2, :2])
    small = ["backbone.unet.block_out_channels=[16,16,16]", "backbone.unet.attention_head_dim=16", "batch_size=4"]
    small += ["backbone.unet.norm_num_groups=4", "backbone.next_dit.hidden_size=32", "backbone.next_dit.num_layers=1"]
    wanted = ["as params.yaml", "next_dit", "no prior", "uniform times", "aligned"]
    learning.main(["--latents", str(tmp_path), "--minutes", "0.01", "--candidates", *wanted, "--set", *small])
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split()[0] == "images"
    assert [" ".join(line.split()[:-7]) for line in lines] == [name for name in wanted for _ in range(5)]
    images = [int(line.split()[-7].replace(",", "")) for line in lines]
    assert images[0] == 0
    assert images[4] > 0
    begin = [float(value) for value in lines[0].split()[-6:]]
    assert begin == pytest.approx([1] * 6, abs=0.35), "an untrained network is the prior"
    assert float(lines[10].split()[-1]) > 1.2, "without a prior an untrained network knows nothing"


def test_purification_plants_what_it_says_and_each_filter_is_judged_alone_and_with_the_others(capsys):
    purification.main(["--limit", "24", "--size", "32", "--filters", "text", "image", "--share", "0.2"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    cells = {(error, by): row for error, by, *row in table}
    for kind in purification.KINDS:
        judged, wrong, dropped, recall, precision, area = cells[kind, "text"]
        assert (judged, wrong, area) == ("48", "10", "")
        assert float(recall) >= 0.8
        assert float(precision) >= 0.9
        hits = round(float(recall) * 10)
        by_image = int(cells[kind, "image"][2])
        assert int(dropped) <= int(cells[kind, "all of them"][2]) <= int(dropped) + by_image
        assert round(float(cells[kind, "all of them"][3]) * 10) >= hits
    for kind, alterations in purification.PICTURE_KINDS.items():
        each = [cells[f"{kind}: {step.__name__}", "image"] for step in alterations]
        planted = sum(int(row[1]) for row in each)
        assert cells[kind, "image"][1] == str(planted) == "10"
        assert 0 < sum(int(row[2]) for row in each) <= planted


def test_purification_alters_pictures_and_leaves_the_others(tmp_path):
    pretrain.run_step("ingest", {}, {"cohort": tmp_path}, n=12, size=64, workers=1)
    rows = list(Cohort(tmp_path).rows())
    for kind, alterations in purification.PICTURE_KINDS.items():
        records = list(purification.planted_pictures(kind, rows, 0.25, seed=1))
        altered = [record for record in records if record.labels]
        assert {record.labels["planted"] for record in altered} == {step.__name__ for step in alterations}
        assert len(records) == (15 if kind == "copy" else 12)
        untouched = [record.image for record in records if not record.labels]
        assert set(untouched) <= {row["image"]["bytes"] for row in rows}
        assert not {record.image for record in altered} & set(untouched)
        if kind == "copy":
            assert [record.patient for record in altered] == [None] * 3, "a copy is not known to be one"


def test_planted_copies_are_found_and_honest_images_left_alone(tmp_path, capsys):
    def pictures(seed, n):
        coarse = np.random.default_rng(seed).uniform(40, 220, (n, 12, 12, 3)).astype(np.float32)
        return [cv2.resize(c, (64, 64), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8) for c in coarse]

    with CohortWriter(tmp_path, "pictures") as writer:
        for seed, (split, n) in enumerate({"train": 120, "validation": 100, "test": 100}.items()):
            for number, image in enumerate(pictures(seed, n)):
                name = f"{split}{number}"
                row = {"image_id": name, "patient_id": name, "split": split, "source": "drawn", "sha256": name}
                row |= {"image": {"bytes": encode_png(image), "path": ""}, "width": 64, "height": 64}
                writer.add(row)
    copies.main([str(tmp_path), "--mixtures", "18"])
    out = capsys.readouterr().out
    assert "18 mixtures of 100 honest images and 1 copies" in out
    planted, found = re.search(r"\| all \| (\d+) \| (\d+)", out).groups()
    assert int(found) / int(planted) >= 0.94, "one of 18 may be missed"
    # 100 test images make a threshold that one unseen image in 100 crosses.
    assert int(re.search(r"false alarms: (\d+) of 100", out).group(1)) <= 4


def test_purification_refuses_more_errors_than_can_be_planted():
    with pytest.raises(UsageError, match="lower --share"):
        purification.plant("laterality", [{"image_id": "a"}], {"a": {"eye": None, "findings": []}}, None, 1.0, 0)
