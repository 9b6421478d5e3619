"""Inception-v3 as image metrics use it: the network of the FID, with the weights that torch-fidelity distributes.

These are the weights of the TensorFlow release of 2015-12-05, on which the FID was defined (Heusel et al., NeurIPS
2017). The network differs from torchvision's: 1,008 classes, average pooling that leaves the border out, max pooling in
the last block, and a bilinear resize whose grid starts at the first pixel. Layers bear the names of that file.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retinalogos.errors import UsageError

WEIGHTS_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
SIDE = 299  # pixels at which it was trained
CLASSES = 1008

# A convolution of a block: name, channels, kernel (rows, columns), stride.
Spec = tuple[str, int, tuple[int, int], int]


def _spec(name: str, channels: int, rows: int = 1, columns: int | None = None, stride: int = 1) -> Spec:
    return name, channels, (rows, rows if columns is None else columns), stride


def _block_a(pool: int) -> list[list[Spec]]:
    return [
        [_spec("branch1x1", 64)],
        [_spec("branch5x5_1", 48), _spec("branch5x5_2", 64, 5)],
        [_spec("branch3x3dbl_1", 64), _spec("branch3x3dbl_2", 96, 3), _spec("branch3x3dbl_3", 96, 3)],
        [_spec("branch_pool", pool)],
    ]


_BLOCK_B = [
    [_spec("branch3x3", 384, 3, stride=2)],
    [_spec("branch3x3dbl_1", 64), _spec("branch3x3dbl_2", 96, 3), _spec("branch3x3dbl_3", 96, 3, stride=2)],
]


def _block_c(narrow: int) -> list[list[Spec]]:
    double = [_spec("branch7x7dbl_1", narrow)]
    for number in (2, 3, 4, 5):
        shape = (7, 1) if number % 2 == 0 else (1, 7)
        double.append(_spec(f"branch7x7dbl_{number}", 192 if number == 5 else narrow, *shape))
    return [
        [_spec("branch1x1", 192)],
        [_spec("branch7x7_1", narrow), _spec("branch7x7_2", narrow, 1, 7), _spec("branch7x7_3", 192, 7, 1)],
        double,
        [_spec("branch_pool", 192)],
    ]


_BLOCK_D = [
    [_spec("branch3x3_1", 192), _spec("branch3x3_2", 320, 3, stride=2)],
    [
        _spec("branch7x7x3_1", 192),
        _spec("branch7x7x3_2", 192, 1, 7),
        _spec("branch7x7x3_3", 192, 7, 1),
        _spec("branch7x7x3_4", 192, 3, stride=2),
    ],
]
_FORK = "|"  # ends the names of the two last convolutions of a branch that both see what came before them
_BLOCK_E = [
    [_spec("branch1x1", 320)],
    [_spec("branch3x3_1", 384), _spec("branch3x3_2a|", 384, 1, 3), _spec("branch3x3_2b|", 384, 3, 1)],
    [
        _spec("branch3x3dbl_1", 448),
        _spec("branch3x3dbl_2", 384, 3),
        _spec("branch3x3dbl_3a|", 384, 1, 3),
        _spec("branch3x3dbl_3b|", 384, 3, 1),
    ],
    [_spec("branch_pool", 192)],
]


class _Convolution(nn.Module):
    """Convolution without bias, batch normalisation, rectifier."""

    def __init__(self, channels_in: int, channels: int, kernel: tuple[int, int], stride: int, padded: bool):
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if padded else 0
        self.conv = nn.Conv2d(channels_in, channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=0.001)

    def forward(self, x_bchw: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x_bchw)), inplace=True)


class _Mixed(nn.Module):
    """Branches beside each other; a branch of the name ``branch_pool`` pools first, a block with strides pools too."""

    def __init__(self, channels_in: int, branches: Sequence[Sequence[Spec]], pooling: str = "average"):
        super().__init__()
        self._pooling = pooling
        self._paths: list[tuple[list[str], list[str]]] = []  # in a row, and side by side after those
        self.channels = 0
        self._halves = any(stride == 2 for branch in branches for *_, stride in branch)
        for branch in branches:
            width = channels_in
            row: list[str] = []
            fork: list[str] = []
            for name, channels, kernel, stride in branch:
                forked, name = name.endswith(_FORK), name.removesuffix(_FORK)
                self.add_module(name, _Convolution(width, channels, kernel, stride, padded=stride == 1))
                (fork if forked else row).append(name)
                width = width if forked else channels
                self.channels += channels if forked else 0
            self.channels += 0 if fork else width
            self._paths.append((row, fork))
        self.channels += channels_in if self._halves else 0

    def forward(self, x_bchw: Tensor) -> Tensor:
        parts = []
        for row, fork in self._paths:
            y_bchw = self._pool(x_bchw) if row == ["branch_pool"] else x_bchw
            for name in row:
                y_bchw = self.get_submodule(name)(y_bchw)
            parts += [self.get_submodule(name)(y_bchw) for name in fork] or [y_bchw]
        if self._halves:
            parts.append(F.max_pool2d(x_bchw, 3, stride=2))
        return torch.cat(parts, 1)

    def _pool(self, x_bchw: Tensor) -> Tensor:
        if self._pooling == "max":
            return F.max_pool2d(x_bchw, 3, stride=1, padding=1)
        return F.avg_pool2d(x_bchw, 3, stride=1, padding=1, count_include_pad=False)


class InceptionV3(nn.Module):
    """The network: images to 2,048 pooled features; :attr:`fc` holds the weights of the classes."""

    def __init__(self) -> None:
        super().__init__()
        width = 3
        for name, channels, size, stride, padded in (
            ("Conv2d_1a_3x3", 32, 3, 2, False),
            ("Conv2d_2a_3x3", 32, 3, 1, False),
            ("Conv2d_2b_3x3", 64, 3, 1, True),
            ("Conv2d_3b_1x1", 80, 1, 1, False),
            ("Conv2d_4a_3x3", 192, 3, 1, False),
        ):
            self.add_module(name, _Convolution(width, channels, (size, size), stride, padded))
            width = channels
        for name, branches, pooling in (
            ("Mixed_5b", _block_a(32), "average"),
            ("Mixed_5c", _block_a(64), "average"),
            ("Mixed_5d", _block_a(64), "average"),
            ("Mixed_6a", _BLOCK_B, "average"),
            ("Mixed_6b", _block_c(128), "average"),
            ("Mixed_6c", _block_c(160), "average"),
            ("Mixed_6d", _block_c(160), "average"),
            ("Mixed_6e", _block_c(192), "average"),
            ("Mixed_7a", _BLOCK_D, "average"),
            ("Mixed_7b", _BLOCK_E, "average"),
            ("Mixed_7c", _BLOCK_E, "max"),  # as the weights were trained
        ):
            block = _Mixed(width, branches, pooling)
            self.add_module(name, block)
            width = block.channels
        self.fc = nn.Linear(width, CLASSES)

    def forward(self, x_bchw: Tensor) -> Tensor:
        """Features, b × 2,048, of images of values 0-255, b × 3 × h × w of any size."""
        x_bchw = (resize_from_first_pixel(x_bchw, SIDE) - 128) / 128
        for name, part in self.named_children():
            if name == "fc":
                break
            if name in ("Conv2d_3b_1x1", "Mixed_5b"):
                x_bchw = F.max_pool2d(x_bchw, 3, stride=2)
            x_bchw = part(x_bchw)
        return x_bchw.mean((2, 3))


def resize_from_first_pixel(x_bchw: Tensor, side: int) -> Tensor:
    """Bilinear resize to side × side whose grid begins at the centre of the first pixel, as TensorFlow 1 did it."""
    for axis in (2, 3):
        size = x_bchw.shape[axis]
        place = torch.arange(side, device=x_bchw.device, dtype=x_bchw.dtype) * (size / side)
        low = place.floor().long().clamp(max=size - 1)
        weight = (place - low).reshape([-1, 1] if axis == 2 else [-1])
        first, second = (x_bchw.index_select(axis, i) for i in (low, (low + 1).clamp(max=size - 1)))
        x_bchw = first + (second - first) * weight
    return x_bchw


def load_inception(path: Path | None) -> InceptionV3:
    """The network with the weights of a file, or of torch's own store, into which they are fetched once.

    Args:
        path: the file of torch-fidelity; None fetches :data:`WEIGHTS_URL`.

    Raises:
        UsageError: the file is not to be had, or holds something else.
    """
    try:
        if path is None:
            weights = torch.hub.load_state_dict_from_url(WEIGHTS_URL, map_location="cpu", progress=False)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(
            f"feature space 'inception': no weights ({error}); fetch {WEIGHTS_URL} and name the file, inception:FILE"
        ) from None
    network = InceptionV3()
    try:
        network.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UsageError(
            f"feature space 'inception': {path} holds other weights than torch-fidelity's "
            f"({' '.join(str(error).split())[:160]})"
        ) from None
    return network.eval()
