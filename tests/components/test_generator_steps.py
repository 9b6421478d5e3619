"""The generator's steps, one after another, on a small phantom cohort."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file

from components.runner import content_hash, load_step
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import DataError, UsageError
from retinalogos.generators.text import TextToFundusPipeline
from retinalogos.generators.text.latents import Latents, mirrored_words
from retinalogos.generators.text.objective import FlowMatching

LOSS = FlowMatching.__call__
PARAMS = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
TRAINING = {"steps": 6, "batch_size": 8, "warmup_steps": 1, "checkpoint_every": 2, "log_every": 2, "validate_every": 2}
# In bfloat16, which `auto` takes where a CPU has it, the pieces of a batch are rounded before they are added up.
TRAINING["precision"] = "float32"
SAMPLING = PARAMS["pretrain"]["sampling"] | {"steps": 2}
SETTINGS: dict[str, dict[str, Any]] = {
    "ingest": {"n": 40, "size": 32, "workers": 1},
    "caption": {"wordings": {"coarse": 1, "fine": 1}},
    "autoencode": {"judged": 4, "components": 8},
    "encode": {"size": 16, "representation": PARAMS["encode"]["representation"] | {"encoder": "cohort", "steps": 2}},
    "encode_curated": {"size": 32},
    "pretrain": TRAINING
    | {
        "flow": PARAMS["pretrain"]["flow"] | {"alignment_weight": 0.5},
        "sample_every": 6,
        "backbone": {
            "name": "next_dit",
            "pretrained": None,
            "next_dit": {
                "patch_size": 1,
                "hidden_size": 32,
                "num_layers": 1,
                "num_attention_heads": 4,
                "num_kv_heads": 2,
                "multiple_of": 8,
            },
            "unet": {},
            "lumina2": {},
        },
        "sampling": SAMPLING,
    },
    "finetune": TRAINING | {"sample_every": 6, "sampling": SAMPLING},
    "purify": {"agreement_draws": 2, "agreement_quantile": 0.2},
    "augment": {"per_grade": 2, "per_glaucoma": 1, "batch_size": 5, "quality_quantile": 0.0, "duplicate_distance": 0},
}


def run(stage: str, folder: Path, inputs: dict[str, Path], name: str | None = None, **settings: Any) -> dict[str, Any]:
    """Runs a stage as the runner would, outputs in ``folder/<name or stage>/<port>``."""
    step = load_step(stage.split("_")[0])
    params = PARAMS[stage] | SETTINGS.get(stage, {}) | settings
    if "checkpoints" in step.params.model_fields:
        params["checkpoints"] = str(folder / "checkpoints")
    home = folder / (name or stage)
    home.mkdir()
    return dict(step.run(step.params.model_validate(params), inputs, {port: home / port for port in step.outputs}))


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("line")
    verdict = folder / "verdict"
    verdict.mkdir()
    (verdict / "verdict.json").write_text(json.dumps({"passed": True, "errors": [], "warnings": []}))
    cohort, pretrained = folder / "ingest" / "cohort", folder / "pretrain" / "generator"
    captions, autoencoder = folder / "caption" / "captions", folder / "autoencode" / "autoencoder"
    curated, latents = folder / "purify" / "curated", folder / "encode" / "latents"
    metrics = {"ingest": run("ingest", folder, {})}
    metrics["caption"] = run("caption", folder, {"cohort": cohort, "validation": verdict})
    metrics["autoencode"] = run("autoencode", folder, {"cohort": cohort, "validation": verdict})
    encoded = {"cohort": cohort, "captions": captions, "autoencoder": autoencoder}
    metrics["encode"] = run("encode", folder, encoded)
    metrics["pretrain"] = run("pretrain", folder, {"latents": latents, "autoencoder": autoencoder})
    judged = {"cohort": cohort, "captions": captions, "latents": latents, "generator": pretrained}
    metrics["purify"] = run("purify", folder, judged)
    metrics["encode_curated"] = run("encode_curated", folder, encoded | {"captions": curated, "known": latents})
    stage_3 = {"latents": folder / "encode_curated" / "latents", "pretrained": pretrained}
    metrics["finetune"] = run("finetune", folder, stage_3)
    metrics["augment"] = run("augment", folder, {"cohort": cohort, "generator": folder / "finetune" / "generator"})
    return folder, metrics


def test_the_test_split_is_never_encoded(line):
    folder, metrics = line
    latents = Latents(folder / "encode" / "latents")
    splits = {row["image_id"]: row["split"] for row in Cohort(folder / "ingest" / "cohort").table().to_pylist()}
    assert {splits[row["image_id"].removesuffix("-mirrored")] for row in latents.images} == {"train", "validation"}
    assert metrics["encode"]["images"] == 2 * list(splits.values()).count("train") + list(splits.values()).count(
        "validation"
    )


@pytest.mark.slow
def test_torchrun_trains_what_one_process_trains(line, tmp_path):
    folder, metrics = line
    inputs = {"latents": folder / "encode" / "latents", "autoencoder": folder / "autoencode" / "autoencoder"}
    launcher = PARAMS["pretrain"]["launcher"] | {"kind": "torchrun", "processes": 2}
    found = run("pretrain", tmp_path, inputs, launcher=launcher)
    assert found["loss"] == pytest.approx(metrics["pretrain"]["loss"], rel=1e-3)
    weights = "backbone/diffusion_pytorch_model.safetensors"
    one, two = (load_file(home / "pretrain" / "generator" / weights) for home in (folder, tmp_path))
    assert all(torch.allclose(two[name], weight, atol=1e-4) for name, weight in one.items())


def test_a_mirrored_eye_is_the_mirrored_picture_with_sides_exchanged(line):
    folder, _ = line
    latents = Latents(folder / "encode_curated" / "latents")
    numbers = {row["image_id"]: i for i, row in enumerate(latents.images)}
    for name, number in numbers.items():
        if not name.endswith("-mirrored"):
            continue
        original = numbers[name.removesuffix("-mirrored")]
        texts = [latents.texts[i]["text"] for i in latents.captions(original, "fine")]
        assert [latents.texts[i]["text"] for i in latents.captions(number, "fine")] == [
            mirrored_words(text) for text in texts
        ]
        generator = TextToFundusPipeline.from_pretrained(folder / "finetune" / "generator")
        one, other = (generator.autoencoder.decode(latents.latents([i])) for i in (original, number))
        # The linear autoencoder is not itself mirror-symmetric: what it drops differs a little.
        assert float((one.flip(-1) - other).abs().mean()) < 0.1
        break


def test_known_features_are_those_that_would_be_encoded(line, tmp_path):
    folder, _ = line
    inputs = {
        "cohort": folder / "ingest" / "cohort",
        "captions": folder / "purify" / "curated",
        "autoencoder": folder / "autoencode" / "autoencoder",
    }
    run("encode_curated", tmp_path, inputs)
    fresh, reused = (Latents(home / "encode_curated" / "latents") for home in (tmp_path, folder))
    texts = {row["text"]: i for i, row in enumerate(reused.texts)}
    assert texts.keys() == {row["text"] for row in fresh.texts}
    for i, row in enumerate(fresh.texts):
        (one,), (other,) = fresh.tokens([i]), reused.tokens([texts[row["text"]]])
        torch.testing.assert_close(one, other, atol=2e-2, rtol=2e-2)


def test_purify_says_what_it_dropped_and_only_pairs_that_stay_are_encoded(line):
    folder, metrics = line
    purified = metrics["purify"]
    with (folder / "purify" / "curated" / "dropped.csv").open() as file:
        dropped = list(csv.DictReader(file))
    assert purified["dropped"] == len(dropped) > 0
    assert purified["kept"] + purified["dropped"] == purified["captions"]
    assert {row["rule"] for row in dropped} == {"agreement"}  # our own captions break no rule
    kept = pq.read_table(folder / "purify" / "curated" / "captions.parquet").to_pylist()
    gone = {(row["image_id"], row["granularity"], int(row["wording"])) for row in dropped}
    assert not gone & {(row["image_id"], row["granularity"], row["wording"]) for row in kept}


def test_the_synthetic_cohort_is_balanced_and_every_picture_says_where_it_comes_from(line):
    folder, metrics = line
    rows = Cohort(folder / "augment" / "synthetic").table().to_pylist()
    assert metrics["augment"]["kept"] == len(rows)
    training = Cohort(folder / "ingest" / "cohort").table(split="train").to_pylist()
    for grade in {row["dr_grade"] for row in training} - {None}:
        assert metrics["augment"][f"kept_grade_{grade}"] == 2
        assert sum(json.loads(row["labels"])["cell"] == f"grade_{grade}" for row in rows) == 2
    for row in rows:
        assert (row["source"], row["split"]) == ("synthetic", "train")
        assert row["generator"].startswith("NextDiT:")
        assert f"{row['eye']} eye" in row["prompt"].lower()
        assert row["age"] is None
        assert row["truth"] is None
    real = {row["patient_id"] for row in Cohort(folder / "ingest" / "cohort").table().to_pylist()}
    assert not real & {row["patient_id"] for row in rows}


def test_ablation_repeats_stage_3_as_it_was_and_changes_nothing_but_the_captions(line, tmp_path):
    folder, _ = line
    cohort, assess = folder / "ingest" / "cohort", load_step("assess")
    settings = PARAMS["assess"] | {"size": 32, "resamples": 5, "distance_resamples": 5, "kernel_subset_size": 2}
    settings |= {"neighbours": 1, "ms_ssim_pairs": 1, "memorised_neighbours": 2}
    settings["judge"] = settings["judge"] | {
        "size": 32,
        "steps": 2,
        "validate_every": 2,
        "widths": [8, 8],
        "features": 16,
    }
    looked_at = {"cohort": cohort, "synthetic": folder / "augment" / "synthetic"}
    home = {"assessment": tmp_path / "assessed"}
    assessed = dict(assess.run(assess.params.model_validate(settings), looked_at, home))
    inputs = {
        "cohort": cohort,
        "captions": folder / "purify" / "curated",
        "autoencoder": folder / "autoencode" / "autoencoder",
        "known": folder / "encode" / "latents",
        "pretrained": folder / "pretrain" / "generator",
    }
    made = {"latents": "encode_curated", "log": "finetune", "synthetic": "augment", "assessment": "assess"}
    for port, stage in made.items():
        inputs[port] = tmp_path / port
        inputs[port].mkdir()
        own = settings if stage == "assess" else PARAMS[stage] | SETTINGS[stage]
        # As the runner writes it: without what says where something lies on this machine.
        step = load_step("encode" if port == "latents" else stage)
        shown = step.params.model_validate(own).model_dump(mode="json")
        (inputs[port] / "manifest.json").write_text(json.dumps({"params": shown, "metrics": assessed}))
    off = run("ablate", tmp_path, inputs, name="off", work=str(tmp_path / "work"))
    assert (off, (tmp_path / "work").exists()) == ({"enabled": False}, False)
    assert json.loads((tmp_path / "off" / "ablation" / "results.json").read_text()) == {"enabled": False}

    def without(name: str, captions: Path) -> dict[str, Any]:
        on = {"enabled": True, "work": str(tmp_path / "work")}
        metrics = run("ablate", tmp_path, inputs | {"captions": captions}, name=name, **on)
        assert {key: metrics[f"with.{key}"] for key in assessed} == assessed
        found = json.loads((tmp_path / name / "ablation" / "results.json").read_text())["without"]
        assert metrics["without.fid"] == found["realism"]["train"]["frechet"]["synthetic"]["value"]
        return dict(found)

    expected = json.loads((tmp_path / "assessed" / "results.json").read_text())
    assert without("same", inputs["captions"]) == expected, "the same captions give the same figures"
    assert without("all", folder / "caption" / "captions")["realism"] != expected["realism"]


def test_the_same_inputs_give_the_same_bytes(line, tmp_path):
    folder, _ = line
    latents, autoencoder = folder / "encode" / "latents", folder / "autoencode" / "autoencoder"
    run("pretrain", tmp_path, {"latents": latents, "autoencoder": autoencoder})
    assert content_hash(tmp_path / "pretrain") == content_hash(folder / "pretrain")
    generator = {"cohort": folder / "ingest" / "cohort", "generator": folder / "finetune" / "generator"}
    run("augment", tmp_path, generator)
    assert content_hash(tmp_path / "augment") == content_hash(folder / "augment")


def test_metrics_are_finite_and_checkpoints_are_cleared(line):
    folder, metrics = line
    for stage, values in metrics.items():
        for name, value in values.items():
            assert not isinstance(value, float) or math.isfinite(value), f"{stage}.{name}"
    assert not list((folder / "checkpoints").rglob("*.pt"))


def killed_at_step_5(self, model, step, rows):
    if step == 5:
        raise KeyboardInterrupt
    return LOSS(self, model, step, rows)


def test_a_killed_stage_goes_on_from_its_checkpoint(line, tmp_path, monkeypatch, capsys):
    folder, _ = line
    inputs = {"latents": folder / "encode" / "latents", "autoencoder": folder / "autoencode" / "autoencoder"}
    monkeypatch.setattr(FlowMatching, "__call__", killed_at_step_5)
    with pytest.raises(KeyboardInterrupt):
        run("pretrain", tmp_path, inputs, name="killed")
    monkeypatch.undo()
    run("pretrain", tmp_path, inputs)
    assert "going on from step 4 of 6" in capsys.readouterr().out
    assert content_hash(tmp_path / "pretrain") == content_hash(folder / "pretrain")


def test_stage_3_by_adapters_is_stage_1_with_the_adapter_that_it_saves(line, tmp_path, monkeypatch, capsys):
    folder, metrics = line
    inputs = {"latents": folder / "encode_curated" / "latents", "pretrained": folder / "pretrain" / "generator"}
    lora = PARAMS["finetune"]["lora"] | {"rank": 2}
    monkeypatch.setattr(FlowMatching, "__call__", killed_at_step_5)
    with pytest.raises(KeyboardInterrupt):
        run("finetune", tmp_path, inputs, name="killed", lora=lora)
    monkeypatch.undo()
    resumed = run("finetune", tmp_path, inputs, name="resumed", lora=lora)
    assert "going on from step 4 of 6" in capsys.readouterr().out
    run("finetune", tmp_path, inputs, name="whole", lora=lora)
    assert content_hash(tmp_path / "resumed") == content_hash(tmp_path / "whole")
    assert resumed["parameters"] == metrics["finetune"]["parameters"]

    generator = TextToFundusPipeline.from_pretrained(tmp_path / "whole" / "generator")
    base = TextToFundusPipeline.from_pretrained(inputs["pretrained"])
    before = base.backbone.state_dict()
    changed = [
        name for name, weight in generator.backbone.state_dict().items() if not torch.equal(weight, before[name])
    ]
    assert changed
    assert {name.removesuffix(".weight").split(".", 3)[3] for name in changed} <= set(lora["target_modules"])
    carried = PeftModel.from_pretrained(base.backbone, tmp_path / "whole" / "generator" / "adapter").merge_and_unload()
    torch.testing.assert_close(carried.state_dict(), generator.backbone.state_dict())
    assert generator("left eye", seeds=1).shape == (1, 32, 32, 3)


def test_lumina2_trains_and_its_folder_draws(line, tmp_path):
    folder, _ = line
    inputs = {"latents": folder / "encode" / "latents", "autoencoder": folder / "autoencode" / "autoencoder"}
    network = SETTINGS["pretrain"]["backbone"]["next_dit"] | {"axes_dim_rope": [4, 2, 2], "num_refiner_layers": 1}
    backbone = SETTINGS["pretrain"]["backbone"] | {"name": "lumina2", "lumina2": network}
    plain = {"backbone": backbone, "prior_components": 0, "ema_decay": 0.5}
    untrained = run("pretrain", tmp_path, inputs, name="one", steps=1, learning_rate=1e-9, **plain)
    trained = run("pretrain", tmp_path, inputs, name="more", steps=20, learning_rate=5e-3, **plain)
    assert trained["validation_loss"] < 0.95 * untrained["validation_loss"]
    generator = TextToFundusPipeline.from_pretrained(tmp_path / "more" / "generator")
    assert type(generator.backbone).__name__ == "Lumina2Transformer2DModel"
    drawn = generator(["left eye", "right eye, severe"], seeds=[1, 1], size=16).astype(int)
    assert drawn.shape == (2, 16, 16, 3)
    assert abs(drawn[0] - drawn[1]).max() > 1


def test_errors_name_what_is_wrong(line, tmp_path):
    folder, _ = line
    inputs = {
        "cohort": folder / "ingest" / "cohort",
        "captions": folder / "caption" / "captions",
        "autoencoder": folder / "autoencode" / "autoencoder",
    }
    with pytest.raises(UsageError, match="no multiple of the patch 8"):
        run("encode", tmp_path, inputs, name="a", size=20)
    with pytest.raises(UsageError, match="over the budget of 8"):
        run("encode", tmp_path, inputs, name="b", token_budget=8)
    generator = {"cohort": inputs["cohort"], "generator": folder / "finetune" / "generator"}
    with pytest.raises(DataError, match="ask"):
        run("augment", tmp_path, generator, name="c", per_grade=0, per_glaucoma=0)
