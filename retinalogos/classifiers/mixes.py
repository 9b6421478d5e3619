"""Names of mixes of training images: ``real_10_plus_100`` is a tenth of the real images and all synthetic ones.

A name is read from left to right; all numbers are per cent.

| part | says |
|---|---|
| ``real``, ``real_10`` | all real training images; those of a tenth of them, by patient |
| ``synthetic`` | no real image and all synthetic ones |
| ``…_plus_50`` | and half of the synthetic images |
| ``…_ratio_500`` | and five synthetic images for each real one |
| ``…_rare`` | and the synthetic images of the classes that are rare among the real ones |
| ``…_without_augmentation`` | trained without a part of the recipe: its ablation |
"""

import re
from dataclasses import dataclass

from retinalogos.classifiers.configuration import PARTS
from retinalogos.errors import UsageError

REAL, SYNTHETIC = "real", "synthetic"
_NAME = re.compile(
    rf"(?:(?P<synthetic>{SYNTHETIC})|{REAL}(?:_(?P<real>\d+))?"
    r"(?:_plus_(?P<plus>\d+)|_ratio_(?P<ratio>\d+)|_(?P<rare>rare))?)"
    rf"(?:_without_(?P<without>{'|'.join(PARTS)}))?"
)


@dataclass(frozen=True)
class Mix:
    """What a name says.

    Attributes:
        name: the name.
        real: per cent of the real training images, 0-100.
        plus: per cent of the synthetic images, where that is what is asked for.
        ratio: synthetic images for 100 real ones, where that is what is asked for.
        rare: whether only synthetic images of rare classes are added, all of them.
        without: part of the recipe that is left out.
        reference: name of the mix that it is compared with: the same real images and the whole recipe without
            synthetic images; of a share of the real images, of synthetic images alone and of ``real`` without a part of
            the recipe, all real images. None for ``real``.
    """

    name: str
    real: int
    plus: int | None
    ratio: int | None
    rare: bool
    without: str | None
    reference: str | None

    @property
    def has_synthetic(self) -> bool:
        """Whether it asks for synthetic images."""
        return bool(self.plus or self.ratio or self.rare)


def parse(name: str) -> Mix:
    """Reads the name of a mix.

    Raises:
        UsageError: it is none, or a share is not within its range.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise UsageError(
            f"{name!r} is no mix: `real` or `real_10` (per cent), then nothing, `_plus_50`, `_ratio_100` or `_rare`; "
            f"or `synthetic`; and, to leave a part of the recipe out, `_without_` and one of {', '.join(PARTS)}"
        )
    share, plus, ratio = (None if found[part] is None else int(found[part]) for part in ("real", "plus", "ratio"))
    for part, value, most in (("real", share, 99), ("plus", plus, 100), ("ratio", ratio, None)):
        if value is not None and (value < 1 or (most is not None and value > most)):
            raise UsageError(f"mix {name!r}: _{value} of {part} is not from 1{'' if most is None else f' to {most}'}")
    alone = found["synthetic"] is not None
    base = f"{REAL}_{share}" if share else REAL
    if found["without"]:
        reference: str | None = name.removesuffix(f"_without_{found['without']}")
    elif plus or ratio or found["rare"]:
        reference = base
    else:
        reference = None if name == REAL else REAL
    return Mix(
        name=name,
        real=0 if alone else share or 100,
        plus=100 if alone else plus,
        ratio=ratio,
        rare=found["rare"] is not None,
        without=found["without"],
        reference=reference,
    )


def words(name: str) -> str:
    """A mix as a reader would say it."""
    mix = parse(name)
    says = "synthetic only" if not mix.real else "real" if mix.real == 100 else f"{mix.real} % of the real"
    if mix.real and mix.plus:
        says += f" + {mix.plus} % of the synthetic"
    elif mix.ratio:
        says += f" + {mix.ratio / 100:g} synthetic for each"
    elif mix.rare:
        says += " + synthetic of rare classes"
    elif mix.real:
        says += " only"
    return says + (f", without {mix.without}" if mix.without else "")
