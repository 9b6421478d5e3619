"""Feature networks by which a drawn photograph is held to the real one: the perceptual term of the renderer's loss."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retinalogos.classifiers.grader import Grader
from retinalogos.classifiers.network import IMAGENET_MEAN, IMAGENET_STD, SmallBackbone
from retinalogos.errors import UsageError

COHORT = "cohort"
# Photographs in [−1, 1], b×3×h×w, to feature maps.
Features = Callable[[Tensor], list[Tensor]]


class CohortMaps(nn.Module):
    """Feature maps of the stages of a classifier trained on the cohort, and of its pyramid of bands."""

    def __init__(self, grader: Grader):
        super().__init__()
        backbone = grader.network.backbone
        if not isinstance(backbone, SmallBackbone):
            raise UsageError("the perceptual network 'cohort' needs a classifier with the backbone 'small'")
        self.backbone = backbone.eval().requires_grad_(False)

    def forward(self, images_bchw: Tensor) -> list[Tensor]:
        """Photographs in [−1, 1], b×3×h×w, to the feature maps."""
        return self.backbone.stages((images_bchw * 0.5 + 0.5 - self.backbone.mean[0]) / self.backbone.std[0])


class PublishedMaps(nn.Module):
    """Hidden states of a transformers vision model."""

    def __init__(self, name: str):
        super().__init__()
        from transformers import AutoModel

        try:
            self.model = AutoModel.from_pretrained(name).eval().requires_grad_(False)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"perceptual_network {name!r}: neither {COHORT!r} nor a vision model of transformers that can be "
                f"loaded here ({str(error).splitlines()[0]}); without one set loss.perceptual to 0"
            ) from None
        self.mean = nn.Buffer(torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.std = nn.Buffer(torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def forward(self, images_bchw: Tensor) -> list[Tensor]:
        """Photographs in [−1, 1], b×3×h×w, to the hidden states."""
        size = getattr(self.model.config, "image_size", None)
        x = images_bchw if not isinstance(size, int) else F.interpolate(images_bchw, (size, size), mode="bilinear")
        return list(self.model((x * 0.5 + 0.5 - self.mean) / self.std, output_hidden_states=True).hidden_states)


def distance(features: Features, drawn_bchw: Tensor, real_bchw: Tensor) -> Tensor:
    """Mean distance of feature maps, each relative to the mean size of the real one's."""
    with torch.no_grad():
        wanted = features(real_bchw)
    pairs = zip(features(drawn_bchw), wanted, strict=True)
    terms = [(a - b).abs().mean() / b.abs().mean().clamp_min(1e-6) for a, b in pairs]
    return torch.stack(terms).mean()
