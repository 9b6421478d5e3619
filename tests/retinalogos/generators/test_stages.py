import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from latents_at_hand import CHANNELS, DIM, write_latents
from short_training import FLOW, TRAINING
from two_processes import in_two_processes

from retinalogos.errors import UsageError
from retinalogos.generators.text import TextToFundusPipeline
from retinalogos.generators.text.autoencoder import PatchAutoencoder
from retinalogos.generators.text.configuration import AdapterConfig, BackboneConfig, SamplingConfig
from retinalogos.generators.text.latents import Latents
from retinalogos.generators.text.stages import new_backbone, new_conditioning, new_prior, train_stage

PRINT_KEY = """
from retinalogos.generators.text.stages import checkpoint_key
from retinalogos.generators.text.next_dit import NextDiT
from retinalogos.generators.text.prior import LatentPrior

network = NextDiT(hidden_size=32, num_layers=1, num_attention_heads=4, multiple_of=8)
print(checkpoint_key(network, LatentPrior(4, 4, 2, 8), [1, "pretrain"]))
"""
NETWORK = {"patch_size": 2, "hidden_size": 32, "num_layers": 1, "num_attention_heads": 4, "multiple_of": 8}
SETTINGS = TRAINING.model_copy(
    update={
        "steps": 6,
        "warmup_steps": 1,
        "checkpoint_every": 2,
        "log_every": 2,
        "validate_every": 2,
        "sample_every": 3,
    }
)
SAMPLING = SamplingConfig(
    steps=2,
    guidance=1.5,
    time_shift=1.0,
    solver="euler",
    guidance_interval=[0, 1],
    renormalise=False,
    autoguidance=1.0,
    precision="auto",
)


def stage(folder, home, lora=None, alignment_weight=0.0, **changes):
    """Trains in ``home``; the metrics."""
    latents = Latents(folder / "latents")
    conditioning = new_conditioning(latents, standardise=True)
    return train_stage(
        new_backbone(
            BackboneConfig(name="next_dit", pretrained=None, next_dit=NETWORK, unet={}, lumina2={}), latents, 0, True
        ),
        conditioning,
        new_prior(latents, conditioning, 8),
        latents,
        folder / "autoencoder",
        flow=FLOW.model_copy(update={"alignment_weight": alignment_weight}),
        training=SETTINGS.model_copy(update=changes),
        sampling=SAMPLING,
        prompts=["left"],
        seed=0,
        checkpoints=folder / "checkpoints",
        generator=home / "generator",
        log=home / "log",
        what="pretrain",
        lora=lora,
    )


def test_a_killed_stage_is_known_again_in_another_process():
    # A set is in another order in each process, unless the seed of its hashes is the same.
    keys = [
        subprocess.run(
            [sys.executable, "-c", PRINT_KEY],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert keys[0] == keys[1]
    assert len(keys[0].strip()) == 16


def test_adapters_of_a_sharded_model_are_refused(tmp_path):
    write_latents(tmp_path / "latents")
    with pytest.raises(UsageError, match=r"set pretrain\.sharded=false, or pretrain\.lora\.rank=0"):
        stage(tmp_path, tmp_path, lora=AdapterConfig(rank=2, alpha=None, target_modules=["to_q"]), sharded=True)


@pytest.mark.parametrize(("sharded", "weight"), [(False, 0.0), (False, 0.5), (True, 0.5)])
def test_a_stage_on_two_processes_writes_once_and_the_generator_of_one(tmp_path, monkeypatch, sharded, weight):
    # No text encoder is loaded; what its features are does not matter here.
    features = torch.randn(1, 3, DIM, generator=torch.Generator().manual_seed(1))
    encoder = SimpleNamespace(
        encode=lambda texts: (features.expand(len(texts), -1, -1), torch.ones(len(texts), 3).long())
    )
    monkeypatch.setattr(TextToFundusPipeline, "text_encoder", encoder)
    write_latents(tmp_path / "latents", channels_of_encoder=5)
    PatchAutoencoder(4, CHANNELS).save_pretrained(tmp_path / "autoencoder")
    alone = stage(tmp_path, tmp_path / "alone", alignment_weight=weight)

    def work(rank):
        metrics = stage(tmp_path, tmp_path / f"of-{rank}", alignment_weight=weight, sharded=sharded)
        assert rank or abs(metrics.pop("loss") - alone["loss"]) < 1e-5
        assert rank or abs(metrics.pop("validation_loss") - alone["validation_loss"]) < 1e-5
        assert metrics == ({} if rank else {"steps": 6, "images_seen": 48, "parameters": alone["parameters"]})

    assert in_two_processes(work) == [0, 0]
    assert sorted(path.name for path in (tmp_path / "of-0" / "log").iterdir()) == [
        "curves.json",
        "log.jsonl",
        "prompts.json",
        "samples",
    ]
    assert not (tmp_path / "of-1").exists()
    assert not list((tmp_path / "checkpoints").iterdir())
    one, two = (TextToFundusPipeline.from_pretrained(tmp_path / home / "generator") for home in ("alone", "of-0"))
    assert not [name for name in one.backbone.state_dict() if "projector" in name]
    for name, value in one.backbone.state_dict().items():
        torch.testing.assert_close(two.backbone.state_dict()[name], value, rtol=1e-4, atol=1e-5)
