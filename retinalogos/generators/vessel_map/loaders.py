"""Segmenters of arteries and veins by name: the project's own folder, published weights, or any in TorchScript."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from retinalogos.errors import UsageError
from retinalogos.generators.vessel_map.segmenter import Segmenter, UNetSegmenter
from retinalogos.generators.vessel_map.tiles import in_tiles
from retinalogos.training.device import device

TORCHSCRIPT = "torchscript"
_KINDS = {"none", "artery", "vein", "both", "other"}
# Mean and deviation of ImageNet, with which most public networks were trained (torchvision's documentation).
_MEAN, _DEVIATION = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
# Of the contrast-enhanced copy: width of the surroundings in shares of the radius of the field, factor on what differs
# from them, and share of the radius within which the field is trusted. Those of VascX's published preprocessing.
_SURROUNDINGS, _FACTOR, _TRUSTED = 0.05, 4.0, 0.99


@dataclass(frozen=True)
class Layout:
    """What a network takes and gives.

    Attributes:
        size: pixels of the side of what it sees: the field of view fills it, as cohorts hold it.
        kinds: of its channels: none, artery, vein, both; ``other`` is passed over.
        contrast: a contrast-enhanced copy of the photograph is three further channels.
        window: side of the windows that it sees one at a time, neighbours sharing half; None: whole pictures.
    """

    size: int
    kinds: tuple[str, ...]
    contrast: bool = False
    window: int | None = None


@dataclass(frozen=True)
class Published:
    """Weights on the Hugging Face hub: repository, file and layout."""

    repository: str
    file: str
    layout: Layout


PUBLISHED = {
    # VascX (arXiv 2409.16016), AGPL-3.0: an ensemble whose members' logits are averaged.
    "vascx": Published(
        "Eyened/vascx", "artery_vein/av_july24.pt", Layout(1024, ("none", "artery", "vein", "other"), True, 512)
    )
}


def load_segmenter(name: str) -> Segmenter:
    """A segmenter by name.

    Args:
        name: a folder of the step ``segment_vessels``; a key of ``PUBLISHED``, whose weights come from the hub, or with
            ``:FILE`` after it from a file; or ``torchscript:SIZE:KINDS:FILE``, as in
            ``torchscript:512:none,artery,vein,both:weights.pt``: a network saved by ``torch.jit.save`` that takes
            pictures of SIZE pixels, n×3×h×w, standardised by ImageNet's mean and deviation, and gives the logits of
            these KINDS (none, artery, vein, both; ``other`` is passed over), n×k×h×w.

    Raises:
        UsageError: nothing of that name, or a file that is no such network.
    """
    kind, _, rest = name.partition(":")
    if kind in PUBLISHED:
        published = PUBLISHED[kind]
        return ScriptedSegmenter(Path(rest) if rest else _fetched(kind, published), published.layout)
    if kind != TORCHSCRIPT:
        if not Path(name).is_dir():
            raise UsageError(
                f"segmenter {name!r} is no folder; give one that `segment_vessels` wrote, {', '.join(PUBLISHED)}, or "
                f"{TORCHSCRIPT}:SIZE:KINDS:FILE"
            )
        return UNetSegmenter.load(Path(name))
    parts = name.split(":", 3)
    if len(parts) < 4 or not parts[1].isdecimal():
        raise UsageError(f"segmenter {name!r} should be torchscript:SIZE:KINDS:FILE")
    kinds = parts[2].split(",")
    if not {"artery", "vein"} <= set(kinds) or not set(kinds) <= _KINDS:
        raise UsageError(f"segmenter {name!r}: KINDS are none, artery, vein, both and other, and hold artery and vein")
    return ScriptedSegmenter(Path(parts[3]), Layout(int(parts[1]), tuple(kinds)))


def _fetched(name: str, published: Published) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(published.repository, published.file))
    except Exception as error:  # the hub's client raises whatever its HTTP library does
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"segmenter {name}: {published.file} of {published.repository} is not to be had from the hub ({reason}); "
            f"fetch it elsewhere and give {name}:FILE"
        ) from None


class ScriptedSegmenter:
    """A network in TorchScript; see :func:`load_segmenter`.

    Raises:
        UsageError: the file is none.
    """

    def __init__(self, file: Path, layout: Layout):
        try:
            self._network = torch.jit.load(str(file), map_location=device()).eval()
        except (OSError, RuntimeError, ValueError) as error:
            raise UsageError(f"{file} is no TorchScript network ({str(error).strip().splitlines()[0]})") from None
        self.size, self._layout = layout.size, layout

    @torch.inference_mode()
    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """See :class:`~.segmenter.Segmenter`; pictures are brought to the network's size and the answer back."""
        layout, found = self._layout, []
        for image in images:
            seen = cv2.resize(image, (self.size, self.size), interpolation=cv2.INTER_CUBIC).astype(np.float32) / 255
            copies = [seen, contrast_enhanced(seen)] if layout.contrast else [seen]
            standardised = np.concatenate([(copy - _MEAN) / _DEVIATION for copy in copies], 2)
            logits = self._logits(torch.from_numpy(standardised.transpose(2, 0, 1))[None].float().to(device()))
            shares = dict(zip(layout.kinds, torch.softmax(logits, 1)[0].float().cpu().numpy(), strict=True))
            both = shares.get("both", np.zeros_like(shares["artery"]))
            height, width = image.shape[:2]
            pair = [np.minimum(shares[kind] + both, 1) for kind in ("artery", "vein")]
            found.append(np.stack([cv2.resize(one, (width, height), interpolation=cv2.INTER_AREA) for one in pair]))
        return np.stack(found)

    def _logits(self, x: Tensor) -> Tensor:
        def network(x: Tensor, _: object = None, __: object = None, ___: object = None) -> Tensor:
            logits = self._network(x)
            # An ensemble answers with its members stacked in front.
            logits = logits.mean(0) if logits.ndim == 5 else logits
            if logits.ndim != 4 or logits.shape[1] != len(self._layout.kinds):
                raise UsageError(
                    f"the network gives {tuple(logits.shape)}, but {len(self._layout.kinds)} kinds are named: "
                    f"{', '.join(self._layout.kinds)}"
                )
            return logits

        window = self._layout.window
        return network(x) if window is None else in_tiles(window, window // 2)(network)(x, x, x, None)


def contrast_enhanced(image_hwc: np.ndarray) -> np.ndarray:
    """What differs from its surroundings, magnified: h×w×3 in [0, 1], zero outside the field.

    Outside, the field is continued by inversion in its border, so that the border itself does not differ.

    Args:
        image_hwc: float32 in [0, 1], square; the field of view is the inscribed circle.
    """
    side = image_hwc.shape[0]
    radius = side / 2
    row, column = np.mgrid[:side, :side].astype(np.float32) + 0.5 - radius
    squared = (row**2 + column**2) / (_TRUSTED * radius) ** 2
    outside = squared > 1
    scale = np.where(outside, 1 / np.maximum(squared, 1), 1).astype(np.float32)
    continued = cv2.remap(
        image_hwc,
        column * scale + radius - 0.5,
        row * scale + radius - 0.5,
        cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_REFLECT,
    )
    surroundings = cv2.GaussianBlur(continued, (0, 0), _SURROUNDINGS * radius)
    return np.clip(_FACTOR * (image_hwc - surroundings) + 0.5, 0, 1) * ~outside[..., None]
