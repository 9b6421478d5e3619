"""Bootstrap intervals: how far a figure would move if other images of the same kind had been drawn."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval and the number of images (or pairs) behind it.

    ``low`` and ``high`` are None where no interval can be had.
    """

    value: float
    low: float | None
    high: float | None
    n: int

    def as_json(self) -> dict[str, float | int | None]:
        """As JSON has it: a figure that is not defined (nan) becomes null."""
        return {name: None if value != value else value for name, value in asdict(self).items()}


def undefined(n: int = 0) -> Estimate:
    """The estimate of a figure that the data at hand does not define."""
    return Estimate(float("nan"), None, None, n)


def _members(groups: np.ndarray | None) -> np.ndarray | None:
    """Groups as numbers from zero."""
    return None if groups is None else np.unique(groups, return_inverse=True)[1]


def _resampled_rows(n: int, members: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Indices of a resample of n observations, of whole groups where there are any: n differs a little then."""
    if members is None:
        return rng.integers(0, n, n)
    count = int(members.max()) + 1
    return np.repeat(np.arange(n), rng.multinomial(count, np.full(count, 1 / count))[members])


def bootstrap(
    statistic: Callable[..., float],
    *samples: np.ndarray,
    resamples: int,
    seed: int,
    paired: bool = True,
    groups: np.ndarray | None = None,
    level: float = LEVEL,
) -> Estimate:
    """Percentile bootstrap interval of ``statistic(*samples)`` (Efron, Annals of Statistics 1979).

    Args:
        statistic: maps the samples to one number. Resamples on which it is nan (for instance the AUC of
            a resample with one class) are left out.
        samples: arrays whose first axis counts observations.
        resamples: number of resamples; 0 gives the value without an interval.
        seed: of the resampling.
        paired: the samples are columns of the same observations and are resampled together;
            otherwise each is resampled by itself.
        groups: of each observation of paired samples. Whole groups are drawn, since the two eyes of a patient are not
            independent (cluster bootstrap: Field and Welsh, J. R. Statist. Soc. B 2007); None: each stands for itself.
        level: coverage of the interval.
    """
    n = len(samples[0])
    if n == 0:
        return undefined()
    rng = np.random.default_rng(seed)
    members = _members(groups)
    value = float(statistic(*samples))
    draws = []
    for _ in range(resamples):
        together = _resampled_rows(n, members, rng) if paired else None
        draws.append(
            statistic(*(s[_resampled_rows(len(s), None, rng) if together is None else together] for s in samples))
        )
    return percentile(value, np.asarray(draws, float), n, level)


def percentile(value: float, draws: np.ndarray, n: int, level: float = LEVEL) -> Estimate:
    """A figure of n observations with the percentile interval of its resamples; those that are nan are left out."""
    return Estimate(value, *_quantiles(draws, level), n)


def centred_bootstrap(
    statistic: Callable[..., float],
    *samples: np.ndarray,
    resamples: int,
    seed: int,
    level: float = LEVEL,
    floor: float = 0.0,
    groups: Sequence[np.ndarray | None] | None = None,
) -> Estimate:
    """Bootstrap interval of a distance between independent samples, moved back onto the estimate.

    A resample repeats images, so its distances are larger than those of a fresh sample of the same
    size: the percentile interval of a Fréchet distance can lie wholly above its estimate. The spread
    is right, the place is not; the interval is therefore shifted by (estimate − mean of resamples), and
    cut at ``floor``, below which no distance lies. ``groups`` are those of each sample's observations, as in
    :func:`bootstrap`.
    """
    rng = np.random.default_rng(seed)
    value = float(statistic(*samples))
    members = [None] * len(samples) if groups is None else [_members(of) for of in groups]
    draws = np.array(
        [
            statistic(*(s[_resampled_rows(len(s), of, rng)] for s, of in zip(samples, members, strict=True)))
            for _ in range(resamples)
        ],
        float,
    )
    draws = draws[np.isfinite(draws)]
    low, high = _quantiles(draws - draws.mean() + value if draws.size else draws, level)
    return Estimate(value, None if low is None else max(low, floor), high, min(len(s) for s in samples))


def _quantiles(draws: np.ndarray, level: float) -> tuple[float | None, float | None]:
    draws = draws[np.isfinite(draws)]
    if draws.size == 0:
        return None, None
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
