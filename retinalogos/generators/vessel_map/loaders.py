"""Segmenters of arteries and veins by name: the project's own folder, or public weights in TorchScript."""

from pathlib import Path

import cv2
import numpy as np
import torch

from retinalogos.errors import UsageError
from retinalogos.generators.vessel_map.segmenter import Segmenter, UNetSegmenter
from retinalogos.training.device import device

TORCHSCRIPT = "torchscript"
# Mean and deviation of ImageNet, with which most public networks were trained (torchvision's documentation).
_MEAN, _DEVIATION = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


def load_segmenter(name: str) -> Segmenter:
    """A segmenter by name.

    Args:
        name: a folder of the step ``segment_vessels``, or ``torchscript:SIZE:KINDS:FILE``, as in
            ``torchscript:512:none,artery,vein,both:weights.pt``: a network saved by ``torch.jit.save`` that takes
            pictures of SIZE pixels, n×3×h×w, standardised by ImageNet's mean and deviation, and gives the logits of
            these KINDS (none, artery, vein, both; ``other`` is passed over), n×k×h×w.

    Raises:
        UsageError: nothing of that name, or a file that is no such network.
    """
    if not name.startswith(f"{TORCHSCRIPT}:"):
        return UNetSegmenter.load(Path(name))
    parts = name.split(":", 3)
    if len(parts) < 4 or not parts[1].isdecimal():
        raise UsageError(f"segmenter {name!r} should be torchscript:SIZE:KINDS:FILE")
    kinds = parts[2].split(",")
    if not {"artery", "vein"} <= set(kinds) or not set(kinds) <= {"none", "artery", "vein", "both", "other"}:
        raise UsageError(f"segmenter {name!r}: KINDS are none, artery, vein, both and other, and hold artery and vein")
    return ScriptedSegmenter(Path(parts[3]), int(parts[1]), kinds)


class ScriptedSegmenter:
    """A public network; see :func:`load_segmenter`."""

    def __init__(self, file: Path, size: int, kinds: list[str]):
        try:
            self._network = torch.jit.load(str(file), map_location=device()).eval()
        except (OSError, RuntimeError, ValueError) as error:
            raise UsageError(f"{file} is no TorchScript network ({str(error).strip().splitlines()[0]})") from None
        self.size, self._kinds = size, kinds

    @torch.inference_mode()
    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """See :class:`~.segmenter.Segmenter`; pictures are brought to the network's size and the answer back."""
        found = []
        for image in images:
            seen = cv2.resize(image, (self.size, self.size), interpolation=cv2.INTER_CUBIC).astype(np.float32) / 255
            x = torch.from_numpy(((seen - _MEAN) / _DEVIATION).transpose(2, 0, 1))[None].to(device())
            logits = self._network(x)
            if logits.ndim != 4 or logits.shape[1] != len(self._kinds):
                raise UsageError(
                    f"the network gives {tuple(logits.shape)}, but {len(self._kinds)} kinds are named: "
                    f"{', '.join(self._kinds)}"
                )
            shares = dict(zip(self._kinds, torch.softmax(logits, 1)[0].float().cpu().numpy(), strict=True))
            both = shares.get("both", np.zeros_like(shares["artery"]))
            height, width = image.shape[:2]
            pair = [np.minimum(shares[kind] + both, 1) for kind in ("artery", "vein")]
            found.append(np.stack([cv2.resize(one, (width, height), interpolation=cv2.INTER_AREA) for one in pair]))
        return np.stack(found)
