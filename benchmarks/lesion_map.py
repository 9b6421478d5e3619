"""Training of the lesion-map networks against a plain loop over the same networks, on the same phantom eyes.

    python -m benchmarks.lesion_map --network layout
    python -m benchmarks.lesion_map --network render

Ours is the loop of `train_layout` or `train_render` from the first step to the saved averages (checkpoints and samples
at the end alone). The other is written as published code is: networks in their usual memory layout, the whole batch at
once with threads inside each operation, Adam without fusing, gradients of both networks computed in either step, the
average kept weight by weight, and the convolutions of the layout network with kernels of each sample's own (grouped),
as in StyleGAN2. Networks, losses, batch, steps and threads are the same on both sides.
"""

import argparse
import contextlib
import copy
import io
import tempfile
from pathlib import Path
from types import MethodType

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from benchmarks.paired import Way, compare
from components import ROOT
from retinalogos.cohort.schema import LESION_CLASSES
from retinalogos.generators.lesion_map import adversarial, maps
from retinalogos.generators.lesion_map.configuration import (
    AdversarialConfig,
    LayoutConfig,
    LayoutLossConfig,
    RenderConfig,
    RenderLossConfig,
)
from retinalogos.generators.lesion_map.examples import Examples
from retinalogos.generators.lesion_map.layout import ModulatedConv
from retinalogos.generators.lesion_map.layout_training import LayoutObjective
from retinalogos.generators.lesion_map.render_training import RenderObjective
from retinalogos.memory import keep_freed_memory
from retinalogos.phantom import draw, sample_records

LESIONS = {"HE": "haemorrhage", "EX": "hard_exudate", "SE": "soft_exudate", "MA": "microaneurysm"}
OURS, PLAIN = "ours", "plain loop"


def phantom(n: int, size: int) -> Examples:
    """Phantom eyes with exact maps."""
    records = sample_records(n, 0)
    eyes = draw(records, size)
    classes = []
    for eye in eyes:
        masks = {"VB": eye.fov > 0, "OD": eye.disc_cup > 0}
        masks |= {c: eye.lesions == LESION_CLASSES.index(name) for c, name in LESIONS.items()}
        classes.append(maps.from_masks(masks))
    candidates = (1 << np.stack(classes)).astype(np.uint8)
    grades = np.array([record.dr_grade for record in records])
    ids = np.arange(n).astype(object)
    return Examples(candidates, np.stack([eye.image for eye in eyes]), grades, ids, ids)


def objective(options: argparse.Namespace) -> LayoutObjective | RenderObjective:
    """Networks and losses of the laptop preset; the renderer's without its perceptual term, the same on both sides."""
    section = yaml.safe_load((ROOT / "workflows/lesion_map/params.yaml").read_text(encoding="utf-8"))
    told = section[f"train_{options.network}"]
    eyes = phantom(options.eyes, told["network"]["size"])
    if options.network == "layout":
        layout, loss = LayoutConfig(**told["network"]), LayoutLossConfig(**told["loss"])
        return LayoutObjective(eyes, layout, loss, options.batch, 0)
    weights = RenderLossConfig(**{**told["loss"], "perceptual": 0})
    return RenderObjective(eyes, RenderConfig(**told["network"]), weights, None, options.batch, 0)


def ours(options: argparse.Namespace) -> None:
    """Our loop."""
    config = AdversarialConfig(
        steps=options.steps, batch_size=options.batch, pieces=options.threads, generator_rate=1e-3,
        discriminator_rate=1e-3, beta1=0.0, beta2=0.99, decay_share=0.0, ema_decay=0.99,
        checkpoint_every=options.steps, log_every=options.steps, sample_every=options.steps,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as home, contextlib.redirect_stderr(io.StringIO()):
        adversarial.train(objective(options), config, Path(home), Path(home) / "checkpoints", "benchmark")


def plain(options: argparse.Namespace) -> None:
    """The other loop."""
    task = objective(options)
    networks = {"discriminator": task.discriminator, "generator": task.generator}
    losses = {"discriminator": task.discriminator_loss, "generator": task.generator_loss}
    for layer in task.generator.modules():
        if isinstance(layer, ModulatedConv):
            layer.forward = MethodType(grouped, layer)  # type: ignore[method-assign]
    optimizers = {
        name: torch.optim.Adam(network.parameters(), lr=1e-3, betas=(0.0, 0.99)) for name, network in networks.items()
    }
    average = copy.deepcopy(task.generator.state_dict())
    for step in range(options.steps):
        for name, optimizer in optimizers.items():
            for network in networks.values():
                network.zero_grad()
            losses[name](networks[name], step, slice(None)).backward()
            optimizer.step()
        task.after(step)
        with torch.no_grad():
            for key, value in task.generator.state_dict().items():
                average[key].mul_(0.99).add_(value, alpha=0.01)


def grouped(self: ModulatedConv, x_bchw: Tensor, style_bd: Tensor) -> Tensor:
    """The same convolution by kernels of each sample's own."""
    batch, channels, height, width = x_bchw.shape
    factor = self.style(style_bd)[:, None, :, None, None]
    kernels = self.conv.weight * self.conv.scale * factor
    if self.demodulate:
        kernels = kernels * torch.rsqrt(kernels.square().sum((2, 3, 4), keepdim=True) + 1e-8)
    flat = kernels.flatten(0, 1)
    y = F.conv2d(x_bchw.reshape(1, batch * channels, height, width), flat, padding=self.conv.padding, groups=batch)
    return y.view(batch, -1, *y.shape[2:])


def make(name: str, options: argparse.Namespace) -> Way:
    """One of the ways."""
    torch.set_num_threads(options.threads)
    if name == OURS:
        keep_freed_memory()
    return lambda: ours(options) if name == OURS else plain(options)


def main(arguments: list[str] | None = None) -> None:
    """Prints a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=("layout", "render"), default="layout", help="(default: layout)")
    parser.add_argument("--eyes", type=int, default=64, help="phantom eyes (default: 64)")
    parser.add_argument("--batch", type=int, default=16, help="of a step (default: 16)")
    parser.add_argument("--steps", type=int, default=16, help="of a run (default: 16, one period of the penalty)")
    parser.add_argument("--turns", type=int, default=3, help="runs of each that are timed (default: 3)")
    parser.add_argument("--threads", type=int, default=2, help="(default: 2)")
    options = parser.parse_args(arguments)
    compare(make, (OURS, PLAIN), options, options.turns, options.steps * options.batch, "maps")


if __name__ == "__main__":
    main()
