"""What a record supports saying about an eye: the knowledge, apart from its wording.

Works from a full cohort row as from a few columns; what is missing or null is not known, and is not said.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from retinalogos.cohort.findings import FINDINGS
from retinalogos.cohort.schema import EYES, GLAUCOMA, ICDR_GRADES
from retinalogos.errors import DataError

# Quality score (0-1) from which a picture is called good or adequate. The score orders pictures and has no clinical
# scale, so these are quantiles: of every 16th eye of ODIR-5K 23 % lie below the one and 5 % below the other (measured).
GOOD_QUALITY, ADEQUATE_QUALITY = 0.8, 0.64

# Phantom truth. Blur is the standard deviation of the point spread in mm of a 13 mm field: 0.05 mm is one pixel at
# 256 px, where it begins to show. Haze and glow are shares of full effect; cataract is stated from a haze of 0.45 on.
BLURRED_MM, HAZY, GLOWING = 0.05, 0.25, 0.3
# Phantom eyes have a tortuosity of 0.20 +- 0.05 rad (retinalogos.phantom.records): 1.5 deviations above the mean.
TORTUOUS_RAD = 0.275
# Arteriole to venule ratio: 2:3 in health; generalised narrowing is read below about 0.6 (Hubbard et al. 1999).
NARROW_RATIO = 0.6
# Choroidal vessels begin to show; the finding "tessellated fundus" is coded from 0.6 on.
SLIGHTLY_TESSELLATED = 0.35
# A disc this close to the middle of the picture (fraction of its side) lies neither left nor right.
CENTRE_SHARE = 0.06
# Sets of optic-nerve photographs: not of the macular field, in which laterality alone places the disc.
_DISC_CENTRED = ("papila",)

# Vertical cup-to-disc ratio: 0.3-0.4 in health, above 0.6-0.7 in glaucoma (Foster et al., Br J Ophthalmol 2002,
# 86:238).
CUP_BANDS = ((0.3, "small"), (0.5, "average"), (0.65, "moderately large"), (1.01, "large"))

# Lesions that each ICDR grade is compatible with (Wilkinson et al., Ophthalmology 2003, 110:1677): mild is
# microaneurysms only; proliferative is new vessels, or vitreous or preretinal haemorrhage.
_EXUDATES = ("exudate", "hard_exudate", "soft_exudate")
_MODERATE = ("microaneurysm", "haemorrhage", *_EXUDATES, "venous_beading", "macular_oedema")
COMPATIBLE_LESIONS: dict[int, frozenset[str]] = {
    0: frozenset(),
    1: frozenset({"microaneurysm"}),
    2: frozenset(_MODERATE),
    3: frozenset({*_MODERATE, "irma"}),
    4: frozenset(
        {*_MODERATE, "irma", "neovascularisation", "vitreous_haemorrhage", "preretinal_haemorrhage", "laser_scar"}
    ),
}
DIABETIC_LESIONS = COMPATIBLE_LESIONS[4] - {"laser_scar", "macular_oedema"}

# What a stated finding also supports saying.
_ENTAILED = {
    "exudate": ("hard_exudate", "soft_exudate"),
    "amd": ("drusen",),
    "dry_amd": ("drusen",),
    "preretinal_haemorrhage": ("haemorrhage",),
    "disc_haemorrhage": ("haemorrhage",),
    "suspected_diabetic_retinopathy": ("diabetic_retinopathy",),
}

# Name of an artefact, its key in a phantom's truth, and from where on it is told.
_ARTEFACTS = (("blur", "blur_mm", BLURRED_MM), ("haze", "haze", HAZY), ("glow", "glow", GLOWING))
# Code of a lesion and the key of its number, or its numbers by quadrant, in a phantom's truth.
_COUNTED = (
    ("microaneurysm", "microaneurysms"),
    ("haemorrhage", "haemorrhages"),
    ("hard_exudate", "exudate_clusters"),
    ("soft_exudate", "soft_exudates"),
    ("drusen", "drusen"),
)


@dataclass(frozen=True)
class Description:
    """Attributes of one eye that its record knows; None where it does not.

    Attributes:
        eye: left or right.
        disc_side: left, right or centre of the picture.
        grade: ICDR 0-4.
        glaucoma: no, suspect, glaucoma.
        dme: diabetic macular oedema.
        vcdr: vertical cup-to-disc ratio, 0-1.
        findings: codes; () is examined and none; None is not known.
        complete: the findings are all that there are, so that what is not among them is absent.
        counts: number of lesions by code, where counted.
        haemorrhage_quadrants: number of quadrants with haemorrhages.
        quality: good, adequate or limited.
        artefacts: blur, haze, glow.
        tone: colour of the background.
        tessellation: none, slight or marked.
        tortuous: whether the vessels are.
        narrow_arterioles: whether the arterioles are.
        macula_side: left, right or centre of the picture.
    """

    eye: str | None = None
    disc_side: str | None = None
    grade: int | None = None
    glaucoma: str | None = None
    dme: bool | None = None
    vcdr: float | None = None
    findings: tuple[str, ...] | None = None
    complete: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)
    haemorrhage_quadrants: int | None = None
    quality: str | None = None
    artefacts: tuple[str, ...] = ()
    tone: str | None = None
    tessellation: str | None = None
    tortuous: bool | None = None
    narrow_arterioles: bool | None = None
    macula_side: str | None = None

    @property
    def cup(self) -> str | None:
        """The cup's size in words, by CUP_BANDS."""
        return None if self.vcdr is None else next(word for limit, word in CUP_BANDS if self.vcdr < limit)

    def supports(self) -> frozenset[str]:
        """Codes of the findings that may be stated: those of the record, what they and its attributes entail.

        Where the findings are not known, also the lesions that the grade is compatible with.
        """
        codes = set(self.findings or ())
        for code in tuple(codes):
            codes.update(_ENTAILED.get(code, ()))
        if self.findings is None and self.grade is not None:
            codes |= COMPATIBLE_LESIONS[self.grade]
        for code, stated in (
            ("macular_oedema", self.dme),
            ("vessel_tortuosity", self.tortuous),
            ("tessellated_fundus", self.tessellation in ("slight", "marked")),
            ("media_opacity", "haze" in self.artefacts or "cataract" in codes),
        ):
            if stated:
                codes.add(code)
        return frozenset(codes)


def describe(record: Mapping[str, Any]) -> Description:
    """The description of ``record``: a cohort row, or any part of one.

    Raises:
        DataError: a value is outside the vocabulary of the cohort schema; the message names row and column.
    """
    truth = _truth(record)
    eye = _one_of(record, "eye", EYES)
    grade = _whole(record, "dr_grade", len(ICDR_GRADES))
    dme = _whole(record, "dme", 2)
    listed = record.get("findings")
    findings = None if listed is None else tuple(dict.fromkeys(listed))
    for code in findings or ():
        if code not in FINDINGS:
            raise _error(record, "findings", code, "a code of cohort.findings.FINDINGS")
    vcdr = _number(record, "vcdr")
    if vcdr is not None and not 0 <= vcdr <= 1:
        raise _error(record, "vcdr", vcdr, "between 0 and 1")
    return Description(
        eye=eye,
        disc_side=_side(truth.get("disc_x")) or (None if record.get("source") in _DISC_CENTRED else eye),
        grade=grade,
        glaucoma=_one_of(record, "glaucoma", GLAUCOMA),
        dme=None if dme is None else bool(dme),
        vcdr=vcdr,
        findings=findings,
        complete=findings is not None and bool(truth),
        counts=_counts(truth),
        haemorrhage_quadrants=_quadrants(truth.get("haemorrhages")),
        quality=_quality(_number(record, "quality")),
        artefacts=_artefacts(truth),
        tone=truth.get("tone"),
        tessellation=_tessellation(truth.get("tessellation")),
        tortuous=_above(truth.get("tortuosity"), TORTUOUS_RAD),
        narrow_arterioles=_below(truth.get("arteriole_venule_ratio"), NARROW_RATIO),
        macula_side=_side(truth.get("fovea_x")),
    )


def _truth(record: Mapping[str, Any]) -> dict[str, Any]:
    text = record.get("truth")
    if not text:
        return {}
    try:
        truth = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise DataError(f"row {record.get('image_id')}: column truth is no JSON object ({error})") from None
    return truth if isinstance(truth, dict) else {}


def _error(record: Mapping[str, Any], column: str, value: Any, wanted: str) -> DataError:
    return DataError(f"row {record.get('image_id')}: column {column} is {value!r}, and must be {wanted}")


def _number(record: Mapping[str, Any], column: str) -> float | None:
    value = record.get(column)
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise _error(record, column, value, "a number") from None
    return None if math.isnan(number) else number


def _whole(record: Mapping[str, Any], column: str, count: int) -> int | None:
    number = _number(record, column)
    if number is None:
        return None
    if number not in range(count):
        raise _error(record, column, record[column], f"a whole number from 0 to {count - 1}")
    return int(number)


def _one_of(record: Mapping[str, Any], column: str, vocabulary: tuple[str, ...]) -> str | None:
    value = record.get(column)
    if value is not None and value not in vocabulary:
        raise _error(record, column, value, f"one of {', '.join(vocabulary)}")
    return value


def _side(x: float | None) -> str | None:
    if x is None:
        return None
    if abs(x - 0.5) < CENTRE_SHARE:
        return "centre"
    return "left" if x < 0.5 else "right"


def _quality(score: float | None) -> str | None:
    if score is None:
        return None
    if score >= GOOD_QUALITY:
        return "good"
    return "adequate" if score >= ADEQUATE_QUALITY else "limited"


def _above(value: float | None, limit: float) -> bool | None:
    return None if value is None else value > limit


def _below(value: float | None, limit: float) -> bool | None:
    return None if value is None else value < limit


def _tessellation(share: float | None) -> str | None:
    if share is None:
        return None
    if share > 0.6:
        return "marked"
    return "slight" if share > SLIGHTLY_TESSELLATED else "none"


def _artefacts(truth: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple([name for name, key, limit in _ARTEFACTS if _above(truth.get(key), limit)])


def _counts(truth: Mapping[str, Any]) -> dict[str, int]:
    counts = {}
    for code, key in _COUNTED:
        value = truth.get(key)
        if value is not None:
            counts[code] = int(sum(value) if isinstance(value, list) else value)
    return counts


def _quadrants(counts: Any) -> int | None:
    return sum(count > 0 for count in counts) if isinstance(counts, list) else None
