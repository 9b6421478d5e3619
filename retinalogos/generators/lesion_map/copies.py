"""Whether drawn maps and photographs are copies of training ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from retinalogos.generators.lesion_map import maps
from retinalogos.generators.lesion_map.configuration import CopyConfig
from retinalogos.generators.lesion_map.examples import Examples
from retinalogos.metrics import memorisation
from retinalogos.metrics.intervals import Estimate, bootstrap, undefined

# Eyes of each set that the comparison takes at least: distances are relative to the next nearest training eyes.
_LEAST = 2


@dataclass(frozen=True)
class Closest:
    """A drawn eye and the training eye that it comes closest to, as rows.

    ``ratio`` is their relative distance over the limit: below 1 it is flagged.
    """

    drawn: int
    training: int
    ratio: float


@dataclass(frozen=True)
class CopyReport:
    """Whether drawn eyes are copies, by maps or by photographs.

    Attributes:
        compared: drawn eyes that were compared.
        share: of them flagged.
        share_real: of unseen real eyes flagged by the limit of all others: what to expect without copying.
        membership_auc: how well nearness to the drawn eyes tells who was in training; 0.5 is guessing.
        pairs: every drawn eye that was compared, the nearest first.
    """

    compared: int
    share: Estimate
    share_real: Estimate
    membership_auc: Estimate
    pairs: list[Closest]

    @property
    def figures(self) -> dict[str, int | Estimate]:
        """All but the pairs, which name rows."""
        return {name: value for name, value in vars(self).items() if name != "pairs"}


def lesion_descriptor(classes: np.ndarray, side: int) -> np.ndarray:
    """Where a map has which lesions, of unit length: float32, n × 4·side².

    Args:
        classes: uint8, n × h × w.
        side: pixels of the small copy (area average).
    """
    small = [
        [cv2.resize((each == c).astype(np.float32), (side, side), interpolation=cv2.INTER_AREA) for c in maps.LESIONS]
        for each in classes
    ]
    flat = np.array(small, np.float32).reshape(len(classes), len(maps.LESIONS) * side**2)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.divide(flat, length, out=np.zeros_like(flat), where=length > 0)


def find_copies(
    training: Examples, test: Examples, drawn: Examples, config: CopyConfig, resamples: int, seed: int
) -> Mapping[str, CopyReport]:
    """Looks for copies by ``maps`` and by ``photographs``, each calibrated with real eyes that were not trained on.

    Maps without a lesion are left out there: a field and a disc are nobody's own.

    Args:
        training: eyes that the generator learnt from.
        test: real eyes that it has not seen.
        drawn: its eyes.
        config: see :class:`CopyConfig`.
        resamples: behind each interval.
        seed: of the resampling.
    """
    sets = (training, test, drawn)
    everyone = [np.arange(len(each)) for each in sets]
    marked = [np.flatnonzero(np.isin(each.classes, maps.LESIONS).any((1, 2))) for each in sets]
    layouts = [lesion_descriptor(each.classes[rows], config.side) for each, rows in zip(sets, marked, strict=True)]
    pictures = [memorisation.pixel_descriptor(each.images, config.side) for each in sets]
    return {
        "maps": _report(sets, layouts, marked, config, resamples, seed),
        "photographs": _report(sets, pictures, everyone, config, resamples, seed),
    }


def _report(
    sets: Sequence[Examples],
    described: Sequence[np.ndarray],
    rows: Sequence[np.ndarray],
    config: CopyConfig,
    resamples: int,
    seed: int,
) -> CopyReport:
    of_train, of_test, made = described
    if min(len(each) for each in described) < _LEAST:
        return CopyReport(len(made), undefined(), undefined(), undefined(), [])
    near, unseen = (memorisation.nearest(each, of_train, config.neighbours) for each in (made, of_test))
    calibration = memorisation.calibrate({"": unseen.relative}, config.quantile)
    limit = calibration.threshold("")
    flags, flags_real = near.relative < limit, memorisation.leave_one_out_flagged(calibration, config.quantile)
    pairs = [
        Closest(int(rows[2][i]), int(rows[0][near.index[i]]), float(near.relative[i] / limit))
        for i in np.argsort(near.relative, kind="stable")
    ]
    people = [each.patients[of] for each, of in zip(sets, rows, strict=True)]
    members, others = (memorisation.nearest(each, made, config.neighbours).relative for each in (of_train, of_test))
    return CopyReport(
        len(made),
        bootstrap(np.mean, flags, resamples=resamples, seed=seed, groups=people[2]),
        bootstrap(np.mean, flags_real, resamples=resamples, seed=seed, groups=people[1]),
        memorisation.membership_auc(members, others, resamples, seed, np.concatenate(people[:2])),
        pairs,
    )
