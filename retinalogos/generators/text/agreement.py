"""Image–text agreement by the generator itself: does a caption help it to explain its image?

A diffusion model is a classifier (Li et al., arXiv 2303.16203): the caption under which the denoising error is smallest
is the likeliest. Agreement of a caption with an image is the drop of the flow-matching error from the empty caption to
this caption, at the same times and noise for both, as a share of the former.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from retinalogos.generators.text.backbones import velocity
from retinalogos.generators.text.flow import interpolate, target_velocity
from retinalogos.generators.text.latents import Latents
from retinalogos.generators.text.pipeline import TextToFundusPipeline

# Times at which a caption matters most: early, what the picture holds is not yet settled (t = 0 is noise).
_EARLIEST, _LATEST = 0.1, 0.7


@torch.inference_mode()
def agreement(
    pipeline: TextToFundusPipeline, latents: Latents, images: Sequence[int], texts: Sequence[int], draws: int, seed: int
) -> Tensor:
    """Agreement of each image with the caption of the same place in the list; float32, above 0 where it helps.

    Args:
        pipeline: a trained generator.
        latents: set in which the numbers of images and captions count.
        images: B image numbers.
        texts: B caption numbers.
        draws: times and noises over which the error is averaged, the same for every pair.
        seed: of the noise.
    """
    where = pipeline.device
    conditioned = []
    for numbers in (texts, [int(latents.meta["empty_text"])] * len(images)):
        tokens, mask = latents.batch_tokens(numbers)
        text, pooled = pipeline.conditioning(tokens.to(where), mask.to(where))
        conditioned.append((text, mask.to(where), pooled))
    data = latents.latents(images).to(where)
    errors = torch.zeros(2, len(images), device=where)
    draw = torch.Generator().manual_seed(seed)
    for time in torch.linspace(_EARLIEST, _LATEST, draws).tolist():
        noise = torch.randn(data.shape[1:], generator=draw).to(where).expand_as(data)
        t = torch.full((len(images),), time, device=where)
        x, target = interpolate(data, noise, t), target_velocity(data, noise)
        for i, (text, mask, pooled) in enumerate(conditioned):
            predicted, _ = velocity(pipeline.backbone, pipeline.prior, x, t, text, mask, pooled)
            errors[i] += (predicted - target).square().mean((1, 2, 3))
    return ((errors[1] - errors[0]) / errors[1]).cpu()
