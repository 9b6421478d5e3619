"""Stage 1 from end to end against a loop on the pattern of diffusers' training examples, on the same phantom eyes.

    python -m benchmarks.pretrain
    python -m benchmarks.pretrain --autoencoder kl    # an AutoencoderKL of the published widths: far slower

Ours are the steps `encode` (latents and text features stored once, its time counted in) and `pretrain` (averaged
weights, validation at the end, one small sample, the saved generator). The other decodes pictures, encodes them with
the autoencoder and captions with the text encoder anew in every step, and trains diffusers' LuminaNextDiT2DModel with
AdamW; it keeps no average and saves nothing. Network, autoencoder, text encoder (all-MiniLM-L6-v2), batch and number
of steps are the same. Ours trains in the precision that params.yaml has, the other in float32, which is the default of
diffusers' scripts; with --precision float32 both do. Ours runs its batch in pieces side by side, a thread each; the
other uses as many threads in each operation. The more epochs, the less encoding once weighs; the second table is the
limit of many. An AutoencoderKL is of random weights here, which changes nothing of its speed.
"""

import argparse
import contextlib
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq
import torch
import yaml
from diffusers import AutoencoderKL, LuminaNextDiT2DModel
from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.paired import Process, Way, in_turn, table, tell_memory
from components import ROOT
from components.runner import load_step
from retinalogos.cohort.shards import Cohort
from retinalogos.generators.text.autoencoder import as_autoencoder, load_autoencoder_model
from retinalogos.generators.text.conditioning import load_text_encoder
from retinalogos.generators.text.flow import interpolate, sample_timesteps, target_velocity
from retinalogos.memory import keep_freed_memory
from retinalogos.training.configuration import Precision

OURS, ENCODE, PRETRAIN, THEIRS = "encode and pretrain", "encode", "pretrain", "diffusers' pattern"
# Latents of a pixel block of eight: as the patch autoencoder of params.yaml.
CHANNELS = 32
PUBLISHED_WIDTHS = (128, 256, 512, 512)  # of stabilityai/sd-vae-ft-mse


def quietly(work: Callable[[], object]) -> None:
    """Without the progress lines of steps."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        work()


def run_step(stage: str, inputs: dict[str, Path], outputs: dict[str, Path], **settings: Any) -> None:
    """A step of the workflow with the settings of params.yaml but for these."""
    step = load_step(stage)
    section = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))[stage]
    params = step.params.model_validate(section | settings)
    for path in outputs.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    quietly(lambda: step.run(params, inputs, outputs))


def prepare(folder: Path, options: argparse.Namespace) -> None:
    """The cohort, its captions and the autoencoder; and the training pictures as files, with their captions."""
    cohort, captions, autoencoder = (folder / name for name in ("cohort", "captions", "autoencoder"))
    run_step("ingest", {}, {"cohort": cohort}, n=options.eyes, size=options.size, workers=1)
    verdict = folder / "verdict"
    verdict.mkdir()
    (verdict / "verdict.json").write_text(json.dumps({"passed": True, "errors": [], "warnings": []}))
    run_step(
        "caption", {"cohort": cohort, "validation": verdict}, {"captions": captions, "page": folder / "captions-page"}
    )
    if options.autoencoder == "patch":
        inputs = {"cohort": cohort, "validation": verdict}
        run_step("autoencode", inputs, {"autoencoder": autoencoder}, components=CHANNELS, judged=1)
    else:
        torch.manual_seed(0)
        AutoencoderKL(
            block_out_channels=options.widths, latent_channels=CHANNELS, layers_per_block=2,
            down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
            norm_num_groups=min(32, options.widths[0]),
        ).save_pretrained(autoencoder)  # fmt: skip
    texts: dict[str, str] = {}
    for row in pq.read_table(captions / "captions.parquet").to_pylist():
        texts.setdefault(row["image_id"], row["text"])
    (folder / "files").mkdir()
    lines = []
    for row in Cohort(cohort).rows(("image_id", "image"), split="train"):
        (folder / "files" / row["image_id"]).write_bytes(row["image"]["bytes"])
        lines.append({"file": row["image_id"], "text": texts[row["image_id"]]})
    (folder / "files.json").write_text(json.dumps(lines))


def network(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments of either class, as backbone.next_dit of params.yaml."""
    heads = options.width // 64
    return {
        "patch_size": 1, "hidden_size": options.width, "num_layers": options.layers, "num_attention_heads": heads,
        "num_kv_heads": heads // 2, "multiple_of": 32,
    }  # fmt: skip


def steps(folder: Path, options: argparse.Namespace) -> int:
    """Of all epochs."""
    return max(1, options.epochs * len(json.loads((folder / "files.json").read_text())) // options.batch)


def encode(folder: Path, latents: Path, options: argparse.Namespace) -> None:
    """Our step ``encode``."""
    inputs = {name: folder / name for name in ("cohort", "captions", "autoencoder")}
    run_step("encode", inputs, {"latents": latents}, size=options.size, mirror=False, batch_size=options.batch)


def pretrain(folder: Path, latents: Path, options: argparse.Namespace) -> None:
    """Our step ``pretrain``."""
    section = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["pretrain"]
    count = steps(folder, options)
    with tempfile.TemporaryDirectory(dir=folder) as home:
        run_step(
            "pretrain",
            {"latents": latents, "autoencoder": folder / "autoencoder"},
            {name: Path(home) / name for name in ("generator", "log")},
            backbone=section["backbone"] | {"name": "next_dit", "next_dit": network(options)},
            prior_components=0, steps=count, batch_size=options.batch, pieces=options.threads, warmup_steps=1,
            precision=options.precision, checkpoint_every=count + 1, validate_every=count, sample_every=count,
            sampling=section["sampling"] | {"steps": 1, "guidance": 1, "solver": "euler"},
            prompts=section["prompts"][:1], checkpoints=str(Path(home) / "checkpoints"),
        )  # fmt: skip


class Files(Dataset):
    """Pictures in files and their captions."""

    def __init__(self, folder: Path, size: int):
        self.folder, self.size = folder, size
        self.lines = json.loads((folder / "files.json").read_text())

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, number: int) -> tuple[Tensor, str]:
        line = self.lines[number]
        with Image.open(self.folder / "files" / line["file"]) as image:
            pixels = np.asarray(image.convert("RGB").resize((self.size, self.size), Image.Resampling.BILINEAR))
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float().div(127.5).sub(1), line["text"]


def on_the_fly(folder: Path, options: argparse.Namespace) -> None:
    """Training that encodes pictures and captions in every step."""
    torch.manual_seed(0)
    autoencoder = as_autoencoder(load_autoencoder_model(folder / "autoencoder"))
    encoder = load_text_encoder("minilm", 64, -1)
    width = options.size // autoencoder.downscale
    model = LuminaNextDiT2DModel(
        sample_size=width, in_channels=CHANNELS, learn_sigma=False, cross_attention_dim=encoder.dim, **network(options)
    ).train()
    nn.init.zeros_(model.pad_token)
    rotary = get_2d_rotary_pos_embed_lumina(model.head_dim, width, width)
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4)
    draw = torch.Generator().manual_seed(0)
    loader = DataLoader(Files(folder, options.size), options.batch, shuffle=True, drop_last=True, generator=draw)
    left = steps(folder, options)
    while left:
        for pixels, texts in loader:
            with torch.no_grad():
                data = autoencoder.encode(pixels)
                text, mask = encoder.encode(texts)
            noise = torch.randn(data.shape, generator=draw)
            t = sample_timesteps(len(data), "logit_normal", 1.0, draw)
            x = interpolate(data, noise, t)
            # A copy: what comes of inference mode has no gradient to pass on.
            predicted = model(x, t, text.clone(), mask, rotary, cross_attention_kwargs={}, return_dict=False)[0]
            (predicted - target_velocity(data, noise)).square().mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            left -= 1
            if not left:
                break


def make(name: str, options: argparse.Namespace) -> Way:
    """One of the ways, on what :func:`prepare` left in ``options.folder``."""
    torch.set_num_threads(options.threads)
    folder = Path(options.folder)
    if name == THEIRS:
        return lambda: quietly(lambda: on_the_fly(folder, options))
    keep_freed_memory()
    if name == PRETRAIN:
        stored = Path(tempfile.mkdtemp(dir=folder)) / "latents"
        encode(folder, stored, options)
        return lambda: pretrain(folder, stored, options)

    def run() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as home:
            encode(folder, Path(home) / "latents", options)

    return run


def main(arguments: list[str] | None = None) -> None:
    """Prints a line for each way, and what of ours is encoding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--autoencoder", choices=("patch", "kl"), default="patch", help="of both (default: patch)")
    parser.add_argument(
        "--widths", type=int, nargs=4, default=PUBLISHED_WIDTHS, help="kl: channels of its levels, finest first"
    )
    parser.add_argument("--eyes", type=int, default=80, help="phantom eyes, four in five for training (default: 80)")
    parser.add_argument("--size", type=int, default=64, help="pixels, a multiple of 8 (default: 64)")
    parser.add_argument("--epochs", type=int, default=3, help="(default: 3; the laptop preset has 2.5)")
    parser.add_argument("--batch", type=int, default=16, help="images of a step (default: 16)")
    parser.add_argument("--width", type=int, default=256, help="channels of a token, a multiple of 128 (default: 256)")
    parser.add_argument("--layers", type=int, default=8, help="blocks (default: 8)")
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="auto",
        help="of ours (default: auto, as params.yaml)",
    )
    parser.add_argument("--turns", type=int, default=3, help="runs of each that are timed (default: 3)")
    parser.add_argument("--threads", type=int, default=2, help="(default: 2)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        options.folder = folder
        prepare(Path(folder), options)
        with contextlib.ExitStack() as ending:
            names = (ENCODE, PRETRAIN, THEIRS)
            ways = {name: ending.enter_context(contextlib.closing(Process(make, name, options))) for name in names}
            times = in_turn({name: way.seconds for name, way in ways.items()}, options.turns, warm_up=False)
            taken = {name: way.memory() for name, way in ways.items()}
        whole = [first + second for first, second in zip(times[ENCODE], times[PRETRAIN], strict=True)]
        images = steps(Path(folder), options) * options.batch
        print("whole:")
        table({OURS: whole, THEIRS: times[THEIRS]}, images, "images")
        print("without encoding, as after many epochs:")
        table({PRETRAIN: times[PRETRAIN], THEIRS: times[THEIRS]}, images, "images")
        for name, memory in taken.items():
            tell_memory(name, memory)


if __name__ == "__main__":
    main()
