"""What candidate generators learn in the same processor time: error of the velocity on validation images.

Needs latents of a run (`make run`), and takes as many minutes as asked for each candidate:

python benchmarks/learning.py --latents data/curated_latents --minutes 4
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from components import ROOT
from components.pretrain.step import STEP
from retinalogos.generators.text.backbones import velocity
from retinalogos.generators.text.conditioning import TextConditioning
from retinalogos.generators.text.flow import interpolate, target_velocity
from retinalogos.generators.text.latents import Latents
from retinalogos.generators.text.objective import FlowMatching
from retinalogos.generators.text.prior import LatentPrior
from retinalogos.generators.text.stages import new_backbone, new_conditioning, new_prior

# From mostly noise, where the caption and the coarse structure count, to nearly data, where fine structure does.
TIMES = (0.1, 0.3, 0.5, 0.7, 0.85)


@dataclass(frozen=True)
class Candidate:
    """A network, and whether it refines the latents' prior or predicts the velocity itself."""

    network: str
    prior: bool


CANDIDATES = [Candidate("unet", True), Candidate("next_dit", True), Candidate("unet", False)]


def validation_errors(
    model: nn.Module, prior: LatentPrior | None, conditioning: TextConditioning, latents: Latents, images: int
) -> list[float]:
    """Mean squared error of the velocity at each of TIMES, with fine captions and the same noise for everyone."""
    rows = latents.rows("validation")[:images]
    data = latents.latents(rows)
    tokens, mask = latents.batch_tokens([latents.captions(row, "fine")[0] for row in rows])
    text, pooled = conditioning(tokens, mask)
    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(0))
    target = target_velocity(data, noise)

    def error(time: float) -> float:
        t = torch.full((len(rows),), time)
        x: Tensor = interpolate(data, noise, t)
        return float((velocity(model, prior, x, t, text, mask, pooled)[0] - target).square().mean())

    with torch.inference_mode():
        return [error(at) for at in TIMES]


def main() -> None:
    """Prints a line of each candidate at each quarter of its time; the prior alone is at zero images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=Path, required=True, help="folder that `encode` wrote")
    parser.add_argument("--minutes", type=float, default=4, help="processor minutes of each candidate")
    parser.add_argument("--images", type=int, default=128, help="validation images")
    parser.add_argument("--widths", type=int, nargs=3, help="channels of the U-Net's levels, finest first")
    parser.add_argument("--candidate", type=int, choices=range(len(CANDIDATES)), help="only this one")
    parser.add_argument("--threads", type=int, default=1, help="threads; processor time counts each")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    section = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["pretrain"]
    if options.widths:
        section["backbone"]["unet"]["block_out_channels"] = options.widths
    params = STEP.params.model_validate(section)
    latents = Latents(options.latents)
    conditioning = new_conditioning(latents, params.standardise_text)
    print(f"network   prior  images  {'  '.join(f't={at:4.2f}' for at in TIMES)}")
    for candidate in CANDIDATES if options.candidate is None else [CANDIDATES[options.candidate]]:
        prior = new_prior(latents, conditioning, params.prior_components) if candidate.prior else None
        backbone = params.backbone.model_copy(update={"name": candidate.network})
        model = new_backbone(backbone, latents, params.seed, candidate.prior)
        model.to(memory_format=torch.channels_last)
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
            errors = validation_errors(model.eval(), prior, conditioning, latents, options.images)
            model.train()
            shown = "  ".join(f"{error:6.3f}" for error in errors)
            print(f"{candidate.network:9} {candidate.prior!s:5} {step * params.batch_size:7,}  {shown}", flush=True)


if __name__ == "__main__":
    main()
