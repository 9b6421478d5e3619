"""What a generator learns in the same processor time, by network, prior, law of times, weighting, batch and alignment.

    python -m benchmarks.learning --latents data/curated_latents --minutes 4

Needs latents of a run (`make run`). Each candidate is `pretrain` of params.yaml but for one thing and trains for as
many processor minutes as asked, at a constant learning rate after warm-up. Shown is the mean squared error of the
velocity on validation images, at fixed times and noise, as a multiple of the prior's own: it starts at 1 (above it
without a prior). Alignment needs an encoder's features beside the latents; those candidates are left out where
there are none. To make some:

    python -m components run encode --stage encode_curated --in cohort=data/cohort --in captions=data/curated_captions \
        --in autoencoder=models/autoencoder --out latents=/tmp/latents --set representation.encoder=cohort

Latents of another scale or another number of components are other latents: errors do not compare between folders.
"""

import argparse
import copy
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from components import ROOT
from components.pretrain.step import PretrainParams
from retinalogos.generators.text.backbones import velocity
from retinalogos.generators.text.conditioning import TextConditioning
from retinalogos.generators.text.flow import interpolate, target_velocity
from retinalogos.generators.text.latents import Latents
from retinalogos.generators.text.objective import FlowMatching
from retinalogos.generators.text.prior import LatentPrior
from retinalogos.generators.text.representation import attach
from retinalogos.generators.text.stages import new_backbone, new_conditioning, new_prior

# From mostly noise, where the caption and the coarse structure count, to nearly data, where fine structure does.
TIMES = (0.1, 0.3, 0.5, 0.7, 0.85)
# As pretrain.prior_components.
STANDARD_COMPONENTS = 100


ALIGNMENT = "flow.alignment_weight"
# Name → what differs from params.yaml.
CANDIDATES: dict[str, dict[str, Any]] = {
    "as params.yaml": {},
    "next_dit": {"backbone.name": "next_dit"},
    "next_dit with a stem": {"backbone.name": "next_dit", "backbone.next_dit.stem_channels": 128},
    "no prior": {"prior_components": 0},
    "uniform times": {"flow.timestep_law": "uniform"},
    "times nearer to noise": {"flow.timestep_shift": 2.0},
    "times nearer to data": {"flow.timestep_shift": 0.5},
    "cosmap weighting": {"flow.loss_weighting": "cosmap"},
    "min-SNR weighting": {"flow.loss_weighting": "min_snr"},
    "batch of 16": {"batch_size": 16},
    "batch of 64": {"batch_size": 64},
    "twice the rate": {"learning_rate": 1.2e-3},
    "aligned": {ALIGNMENT: 0.5},
    "aligned, weight 0.1": {ALIGNMENT: 0.1},
    "next_dit aligned": {"backbone.name": "next_dit", ALIGNMENT: 0.5},
}


def changed(section: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The section with values at dotted places replaced."""
    section = copy.deepcopy(section)
    for key, value in changes.items():
        *path, last = key.split(".")
        place = section
        for name in path:
            place = place[name]
        place[last] = value
    return section


def validation_errors(
    model: nn.Module,
    prior: LatentPrior | None,
    reference: LatentPrior,
    conditioning: TextConditioning,
    latents: Latents,
    images: int,
) -> list[float]:
    """Mean squared error of the velocity at each of TIMES as a multiple of what ``reference`` expects of itself.

    Fine captions, and the same noise for everyone.
    """
    rows = latents.rows("validation")[:images]
    data = latents.latents(rows)
    tokens, mask = latents.batch_tokens([latents.captions(row, "fine")[0] for row in rows])
    text, pooled = conditioning(tokens, mask)
    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(0))
    target = target_velocity(data, noise)

    def error(time: float) -> float:
        t = torch.full((len(rows),), time)
        x: Tensor = interpolate(data, noise, t)
        variance = reference(x, t, pooled).spread_bc11.square().mean((1, 2, 3))
        errors = (velocity(model, prior, x, t, text, mask, pooled)[0] - target).square().mean((1, 2, 3))
        return float((errors / variance).mean())

    with torch.inference_mode():
        return [error(at) for at in TIMES]


def main(arguments: list[str] | None = None) -> None:
    """Prints a line of each candidate at each quarter of its time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=Path, required=True, help="folder that `encode` wrote")
    parser.add_argument("--minutes", type=float, default=4, help="processor minutes of each candidate (default: 4)")
    parser.add_argument("--images", type=int, default=128, help="validation images (default: 128)")
    parser.add_argument("--candidates", nargs="+", choices=list(CANDIDATES), help="only these")
    parser.add_argument("--threads", type=int, default=1, help="threads; processor time counts each (default: 1)")
    parser.add_argument(
        "--set", dest="settings", nargs="+", default=[], help="for all: backbone.next_dit.num_layers=4 …"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    common = dict(setting.split("=", 1) for setting in options.settings)
    section = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["pretrain"]
    section = changed(section, {key: yaml.safe_load(value) for key, value in common.items()})
    latents = Latents(options.latents)
    width = max(map(len, CANDIDATES))
    print(f"{'':{width}}   images  {'  '.join(f't={at:4.2f}' for at in TIMES)}    mean")
    wanted = [
        name for name, changes in CANDIDATES.items() if "representation" in latents.meta or ALIGNMENT not in changes
    ]
    for name in options.candidates or wanted:
        learn(name, PretrainParams.model_validate(changed(section, CANDIDATES[name])), latents, options, width)


def learn(name: str, params: PretrainParams, latents: Latents, options: argparse.Namespace, width: int) -> None:
    """Trains one candidate and prints its lines."""
    conditioning = new_conditioning(latents, params.standardise_text)
    reference = new_prior(latents, conditioning, STANDARD_COMPONENTS)
    prior = new_prior(latents, conditioning, params.prior_components) if params.prior_components else None
    model = new_backbone(params.backbone, latents, params.seed, prior is not None)
    model.to(memory_format=torch.channels_last)
    if params.flow.alignment_weight:
        attach(model, latents.meta, params.seed)
    objective = FlowMatching(latents, conditioning, prior, params.batch_size, params.seed, params.flow)
    optimizer = torch.optim.AdamW(model.parameters(), lr=params.learning_rate, betas=(0.9, params.beta2))
    spent, step = 0.0, 0
    for quarter in range(5):
        while spent < options.minutes * 60 * quarter / 4:
            began = time.process_time()
            for group in optimizer.param_groups:
                group["lr"] = params.learning_rate * min(1, (step + 1) / params.warmup_steps)
            objective(model, step).backward()
            nn.utils.clip_grad_norm_(model.parameters(), params.gradient_clip)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            spent += time.process_time() - began
        errors = validation_errors(model.eval(), prior, reference, conditioning, latents, options.images)
        model.train()
        shown = "  ".join(f"{error:6.3f}" for error in (*errors, sum(errors) / len(errors)))
        print(f"{name:{width}}  {step * params.batch_size:7,}  {shown}", flush=True)


if __name__ == "__main__":
    main()
