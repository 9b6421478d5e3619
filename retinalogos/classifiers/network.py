"""The multi-task grader: one image backbone, one linear head per task."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ViTModel

from retinalogos.errors import UsageError

SMALL = "small"
# Begins the name of a model of timm, and of a file of RETFound's weights.
TIMM, RETFOUND = "timm:", "retfound:"
# Channel statistics of ImageNet: of the hub's backbones, where their processor does not say otherwise.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


# Bands of the pyramid: structures of about 1-2, 2-4, 4-8 and 8-16 pixels.
BANDS = 4
# Moments of each band: mean, root mean square, and the fourth, which a few strong spots dominate.
MOMENTS = 3


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with group norm and a skip (He et al., CVPR 2016; Wu & He, ECCV 2018).

    A stride of 2 averages the skip before its 1×1 convolution, so that no pixel is dropped (He et al., CVPR 2019).
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        groups = channels_out // 8
        self.first = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.first_norm = nn.GroupNorm(groups, channels_out)
        self.second = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.second_norm = nn.GroupNorm(groups, channels_out)
        # The block starts as the identity, which makes the first steps stable without warm-up (Goyal et al., 2017).
        nn.init.zeros_(self.second_norm.weight)
        skip: list[nn.Module] = [nn.AvgPool2d(stride)] if stride > 1 else []
        if channels_in != channels_out:
            skip.append(nn.Conv2d(channels_in, channels_out, 1, bias=False))
        self.skip = nn.Sequential(*skip)

    def forward(self, x_bchw: torch.Tensor) -> torch.Tensor:
        """float32 b×c×h×w to b×c'×(h/stride)×(w/stride)."""
        y = F.relu(self.first_norm(self.first(x_bchw)))
        return F.relu(self.skip(x_bchw) + self.second_norm(self.second(y)))


class SmallBackbone(nn.Module):
    """A residual network for two CPU cores and a thousand images.

    What distinguishes the grades are small dark and bright spots, and with so few images and steps a network does not
    find filters for them. So they are given: a Laplacian pyramid (Burt and Adelson, IEEE Trans. Commun. 1983), each
    band split into what is brighter and what is darker than its surround. Their local means are maps beside the learnt
    stem, and their moments over the image are features beside the learnt ones, as in a hybrid of scattering transform
    and network (Oyallon et al., IEEE PAMI 2019). Of the learnt maps the mean
    tells the load, the maximum a single lesion.
    """

    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    def __init__(self, widths: tuple[int, ...]):
        super().__init__()
        if any(width % 8 for width in widths):
            raise UsageError(f"widths {list(widths)}: every width of the small backbone is a multiple of 8")
        signed = 2 * 3 * BANDS
        self.stem = nn.Conv2d(3, widths[0] - widths[0] // 2, 7, 4, 3)
        self.texture = nn.Conv2d(signed, widths[0] // 2, 1)
        blocks: list[nn.Module] = [nn.GroupNorm(widths[0] // 8, widths[0]), nn.ReLU()]
        for index, width in enumerate(widths):
            blocks.append(ResidualBlock(widths[max(index - 1, 0)], width, 1 if index == 0 else 2))
        self.blocks = nn.Sequential(*blocks)
        # The moments have a scale of their own, far from that of the learnt features: see `standardise_moments`.
        self.given = signed * MOMENTS
        self.moments_mean, self.moments_std = nn.Buffer(torch.zeros(self.given)), nn.Buffer(torch.ones(self.given))
        self.dimension = 2 * widths[-1] + self.given

    def forward(self, x_bchw: torch.Tensor, unmoved_bchw: torch.Tensor | None = None) -> torch.Tensor:
        """Normalised float32 b×3×h×w to pooled features b×dimension, of which the last ``given`` are not learnt.

        ``unmoved_bchw``: the same before it was turned or scaled in training, which blurs what the moments tell.
        """
        stem = self.stem(x_bchw)
        signed = _signed_bands(x_bchw)
        moments = _moments(signed if unmoved_bchw is None else _signed_bands(unmoved_bchw))
        texture = torch.cat([F.adaptive_avg_pool2d(part, stem.shape[-2:]) for part in signed], 1)
        # Local means of the bands are small numbers: to the scale of the picture.
        maps = self.blocks(torch.cat([stem, self.texture(10 * texture)], 1))
        return torch.cat([maps.mean((2, 3)), maps.amax((2, 3)), self._standardised(moments)], 1)

    def stages(self, x_bchw: torch.Tensor) -> list[torch.Tensor]:
        """Normalised float32 b×3×h×w to the local maps of each stage: those of the bands, then the learnt ones."""
        signed = _signed_bands(x_bchw)
        stem = self.stem(x_bchw)
        texture = torch.cat([F.adaptive_avg_pool2d(part, stem.shape[-2:]) for part in signed], 1)
        found = [*signed, torch.cat([stem, self.texture(10 * texture)], 1)]
        for layer in self.blocks:
            found.append(layer(found[-1]))
        return found

    def standardise_moments(self, batches: Iterable[torch.Tensor]) -> torch.Tensor:
        """Sets the moments' scale by normalised images, batches b×3×h×w; returns their standardised moments n×given."""
        with torch.no_grad():
            moments = torch.cat([_moments(_signed_bands(x)) for x in batches])
            self.moments_mean.copy_(moments.mean(0))
            self.moments_std.copy_(moments.std(0).clamp(min=torch.finfo(moments.dtype).eps))
            return self._standardised(moments)

    def _standardised(self, moments_bd: torch.Tensor) -> torch.Tensor:
        return (moments_bd - self.moments_mean) / self.moments_std


def _signed_bands(x_bchw: torch.Tensor) -> list[torch.Tensor]:
    """Of each band what is brighter than its surround and what is darker, both positive."""
    return [part for band in laplacian_bands(x_bchw) for part in (F.relu(band), F.relu(-band))]


def _moments(maps_bchw: list[torch.Tensor]) -> torch.Tensor:
    """First, second and fourth moment of each map over the image, in its unit, b×all."""
    found = []
    for map_bchw in maps_bchw:
        squared = map_bchw * map_bchw
        found += [map_bchw.mean((2, 3)), squared.mean((2, 3)).sqrt(), (squared * squared).mean((2, 3)).sqrt().sqrt()]
    return torch.cat(found, 1)


def laplacian_bands(x_bchw: torch.Tensor) -> list[torch.Tensor]:
    """Band-pass images b×c×h×w, b×c×h/2×w/2, …: each level minus the next coarser one."""
    bands = []
    for _ in range(BANDS):
        coarser = F.avg_pool2d(x_bchw, 2)
        bands.append(x_bchw - F.interpolate(coarser, size=x_bchw.shape[-2:], mode="bilinear", align_corners=False))
        x_bchw = coarser
    return bands


class TransformersBackbone(nn.Module):
    """Any image backbone of transformers; its features are the mean of the last hidden state.

    The mean over positions (or tokens) is used for every family because the pooler of several checkpoints (ViT among
    them) is not part of the published weights and would be random.
    """

    def __init__(self, model: "PreTrainedModel", mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.model, self.mean, self.std = model, mean, std
        sizes = getattr(model.config, "hidden_sizes", None)
        self.dimension = int(sizes[-1] if sizes else model.config.hidden_size)

    @classmethod
    def from_pretrained(cls, name: str, size: int, pretrained: bool = True) -> "TransformersBackbone":
        """Loads weights and channel statistics from the hub or a folder; without ``pretrained`` the weights are random.

        Raises:
            UsageError: nothing of that name can be loaded, or it wants images of another size.
        """
        # Imported where it is used: it takes seconds, and the small backbone does without.
        from transformers import AutoConfig, AutoImageProcessor, AutoModel

        try:
            if pretrained:
                model = AutoModel.from_pretrained(name, dtype=torch.float32)
            else:
                model = AutoModel.from_config(AutoConfig.from_pretrained(name), dtype=torch.float32)
            processor = AutoImageProcessor.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"backbone {name!r} is neither {SMALL!r} nor an image model of transformers (hub name or folder "
                f"with config.json, weights and preprocessor_config.json): {str(error).splitlines()[0]}"
            ) from error
        wanted = getattr(model.config, "image_size", None)
        if wanted is not None and wanted != size and _fixed_size(model):
            raise UsageError(f"backbone {name!r} takes images of {wanted} px, not {size}: set `size` to {wanted}")
        mean = tuple(getattr(processor, "image_mean", None) or IMAGENET_MEAN)
        std = tuple(getattr(processor, "image_std", None) or IMAGENET_STD)
        return cls(model, mean, std)

    def forward(self, x_bchw: torch.Tensor, unmoved_bchw: torch.Tensor | None = None) -> torch.Tensor:
        """Normalised float32 b×3×h×w to pooled features b×dimension; ``unmoved_bchw`` is not looked at."""
        state = self.model(pixel_values=x_bchw).last_hidden_state
        return state.mean((2, 3)) if state.ndim == 4 else state.mean(1)


class TimmBackbone(nn.Module):
    """Any image model of timm; its features are what timm pools for its own classifier. Needs the extra ``timm``."""

    def __init__(self, name: str, size: int, pretrained: bool):
        super().__init__()
        try:
            import timm
        except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit torch
            raise UsageError(
                f"backbone {TIMM}{name} needs timm, which cannot be imported here ({error}): "
                "pip install 'retinalogos[timm]' beside a torchvision that fits torch"
            ) from None
        try:
            self.model = timm.create_model(name, pretrained=pretrained, num_classes=0)
        except (RuntimeError, ValueError, OSError) as error:
            raise UsageError(f"backbone {TIMM}{name}: timm cannot make it: {str(error).splitlines()[0]}") from None
        told = self.model.pretrained_cfg
        wanted = told.get("input_size", (3, size, size))[-1]
        if told.get("fixed_input_size") and wanted != size:
            raise UsageError(f"backbone {TIMM}{name} takes images of {wanted} px, not {size}: set `size` to {wanted}")
        self.name, self.size = name, size
        self.mean, self.std = tuple(told.get("mean", IMAGENET_MEAN)), tuple(told.get("std", IMAGENET_STD))
        self.dimension = int(self.model.num_features)

    def forward(self, x_bchw: torch.Tensor, unmoved_bchw: torch.Tensor | None = None) -> torch.Tensor:
        """Normalised float32 b×3×h×w to pooled features b×dimension; ``unmoved_bchw`` is not looked at."""
        pooled: torch.Tensor = self.model(x_bchw)
        return pooled


class RetfoundBackbone(nn.Module):
    """RETFound's encoder as its own classifiers take it: the mean over patches, and a normalisation that is learnt.

    Args:
        encoder: ViT without its last normalisation.
    """

    mean, std = IMAGENET_MEAN, IMAGENET_STD

    def __init__(self, encoder: "ViTModel"):
        super().__init__()
        self.model = encoder
        self.dimension = int(encoder.config.hidden_size)
        self.norm = nn.LayerNorm(self.dimension, eps=1e-6)

    @classmethod
    def from_file(cls, file: Path, size: int, pretrained: bool) -> "RetfoundBackbone":
        """Reads the published checkpoint; without ``pretrained`` its sizes alone, and the weights are random.

        Raises:
            UsageError: it cannot be read, or wants images of another size.
        """
        from retinalogos.vision_transformer import read_retfound, unnormalised

        encoder = read_retfound(file)
        wanted = encoder.config.image_size
        if wanted != size:
            raise UsageError(
                f"backbone {RETFOUND}{file} takes images of {wanted} px, not {size}: set `size` to {wanted}"
            )
        return cls(encoder if pretrained else unnormalised(encoder.config))

    def forward(self, x_bchw: torch.Tensor, unmoved_bchw: torch.Tensor | None = None) -> torch.Tensor:
        """Normalised float32 b×3×h×w to pooled features b×dimension; ``unmoved_bchw`` is not looked at."""
        pooled: torch.Tensor = self.norm(self.model(pixel_values=x_bchw).last_hidden_state[:, 1:].mean(1))
        return pooled


Backbone = SmallBackbone | TransformersBackbone | TimmBackbone | RetfoundBackbone


def _fixed_size(model: "PreTrainedModel") -> bool:
    """Whether the network has one learnt embedding per position."""
    return any("position_embedding" in name for name, _ in model.named_parameters())


# A block's place, as the backbones number theirs: `layers.3`, `blocks.3`, `stages.1.layers.0`, `layer1`.
_BLOCK = re.compile(r"(?:^|\.)(?:layers?|blocks|stages)\.?(\d+)")


def by_depth(backbone: nn.Module) -> dict[int, list[nn.Parameter]]:
    """Parameters of a backbone by the number of blocks from them to the heads, themselves counted.

    0 is what follows the last block (a last normalisation), 1 the last block, and the greatest number what comes before
    the first block (patches and their places, a stem).
    """
    groups: list[list[nn.Parameter]] = [[]]
    seen: tuple[str, ...] = ()
    after: list[nn.Parameter] = []
    for name, value in backbone.named_parameters():
        # A stage's number and the block's within it; what a block numbers in itself is one.
        place = tuple(_BLOCK.findall(name)[:2])
        if not place and seen:
            after.append(value)
            continue
        if place != seen:
            groups.append([])
            seen = place
        groups[-1].append(value)
    return {0: after} | {depth: values for depth, values in enumerate(reversed(groups), start=1) if values}


class GraderNetwork(nn.Module):
    """Backbone, one hidden layer (the features) and a linear head per task."""

    def __init__(self, backbone: nn.Module, dimension: int, features: int, classes: dict[str, int]):
        super().__init__()
        self.backbone = backbone
        self.neck = nn.Linear(dimension, features)
        self.heads = nn.ModuleDict({task: nn.Linear(features, count) for task, count in classes.items()})

    def start_at(self, scores: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Makes the logits of tasks linear functions of the backbone's last features, for training to go on from.

        Two hidden units carry each: ``gelu(x) − gelu(−x) = x``. The heads of these tasks start with these units alone,
        those of other tasks without them.

        Args:
            scores: task → weights classes×d of the last d features, and biases (classes,).

        Raises:
            UsageError: there are fewer hidden units than that.
        """
        needed = 2 * sum(len(bias) for _, bias in scores.values())
        if needed > self.neck.out_features:
            raise UsageError(f"features {self.neck.out_features}: these tasks need at least {needed}")
        unit = 0
        heads: Any = self.heads
        with torch.no_grad():
            for task in heads:
                heads[task].weight[:, : None if task in scores else needed] = 0
            for task, (weights, biases) in scores.items():
                nn.init.zeros_(heads[task].bias)
                for code, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                    for sign in (1.0, -1.0):
                        self.neck.weight[unit] = 0
                        self.neck.weight[unit, -len(weight) :] = sign * weight
                        self.neck.bias[unit] = sign * bias
                        heads[task].weight[code, unit] = sign
                        unit += 1

    def features(self, x_bchw: torch.Tensor, unmoved_bchw: torch.Tensor | None = None) -> torch.Tensor:
        """Normalised float32 b×3×h×w to the penultimate activations b×features; see :class:`SmallBackbone`."""
        return F.gelu(self.neck(self.backbone(x_bchw, unmoved_bchw)))

    def forward(self, x_bchw: torch.Tensor, unmoved_bchw: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Normalised float32 b×3×h×w to logits b×classes of every task."""
        features = self.features(x_bchw, unmoved_bchw)
        return {task: head(features) for task, head in self.heads.items()}


def new_backbone(name: str, size: int, widths: tuple[int, ...], pretrained: bool = True) -> Backbone:
    """The backbone of that name, with its published weights or random ones from torch's global seed.

    Args:
        name: ``small``, ``timm:NAME``, ``retfound:FILE``, or hub name or folder of an image model of transformers.
        size: side of the images in pixels.
        widths: channels per stage of ``small``.
        pretrained: whether to take published weights; ``small`` has none.

    Raises:
        UsageError: nothing of that name can be loaded, or it wants images of another size.
    """
    if name == SMALL:
        return SmallBackbone(widths)
    if name.startswith(TIMM):
        return TimmBackbone(name.removeprefix(TIMM), size, pretrained)
    if name.startswith(RETFOUND):
        return RetfoundBackbone.from_file(Path(name.removeprefix(RETFOUND)), size, pretrained)
    return TransformersBackbone.from_pretrained(name, size, pretrained)


def describe_backbone(backbone: Backbone) -> dict[str, Any] | None:
    """What :func:`restore_backbone` needs beside the weights: None for ``small``."""
    if isinstance(backbone, SmallBackbone):
        return None
    if isinstance(backbone, TimmBackbone):
        return {"timm": backbone.name, "size": backbone.size}
    config = json.loads(backbone.model.config.to_json_string(use_diff=False))
    config.pop("_name_or_path", None)
    if isinstance(backbone, RetfoundBackbone):
        return {"retfound": config}
    return {"config": config, "mean": backbone.mean, "std": backbone.std}


def restore_backbone(description: dict[str, Any] | None, widths: tuple[int, ...]) -> Backbone:
    """The architecture without its weights; neither network nor hub is needed."""
    if description is None:
        return SmallBackbone(widths)
    if "timm" in description:
        return TimmBackbone(description["timm"], description["size"], pretrained=False)
    from transformers import AutoConfig, AutoModel, ViTConfig

    if "retfound" in description:
        from retinalogos.vision_transformer import unnormalised

        return RetfoundBackbone(unnormalised(ViTConfig(**description["retfound"])))
    config = AutoConfig.for_model(**description["config"])
    return TransformersBackbone(AutoModel.from_config(config), tuple(description["mean"]), tuple(description["std"]))


def normalise(images: np.ndarray, backbone: Backbone, device: torch.device) -> torch.Tensor:
    """uint8 n×h×w×3 to float32 n×3×h×w in the backbone's units."""
    x_bchw = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float().div_(255)
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (backbone.mean, backbone.std))
    # Channels last: a quarter to a half faster on a CPU, measured on the small backbone.
    return ((x_bchw - mean) / std).contiguous(memory_format=torch.channels_last)
