"""What a phantom eye is: every attribute that can be drawn, and the distributions they are drawn from.

Lengths are millimetres on the retina. The frame is that of a left eye's picture: x grows towards the temple
(to the right), y downwards, the origin is the centre of the field. A right eye is the mirror image.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from retinalogos.cohort.schema import ICDR_GRADES
from retinalogos.errors import UsageError
from retinalogos.phantom.geometry import FIELD_MM
from retinalogos.phantom.lesions import LESION_CLASSES, lesion_loads

# Enriched: in a screening population about 75 % of diabetics have no retinopathy and under 2 % severe or proliferative
# (EyePACS; Gulshan et al., JAMA 2016, 316:2402), which leaves too few eyes to train a classifier on a small cohort.
GRADE_WEIGHTS = (0.40, 0.13, 0.19, 0.14, 0.14)
# Enriched: 3.5 % of people aged 40-80 have glaucoma (Tham et al., Ophthalmology 2014, 121:2081).
GLAUCOMA_WEIGHTS = (0.72, 0.08, 0.20)  # no, suspect, glaucoma

# Background colour (RGB, 0-255) of the cameras and fundi seen in ODIR-5K, HRF and IDRiD, read off the pictures by eye.
TONES = {
    "orange": (182, 92, 38),
    "red-orange": (186, 66, 32),
    "brown": (138, 80, 36),
    "pink": (164, 92, 74),
    "olive": (146, 102, 48),
    "dark red": (132, 50, 28),
}
_TONE_WEIGHTS = (0.30, 0.20, 0.16, 0.14, 0.12, 0.08)


@dataclass(frozen=True)
class PhantomRecord:
    """Every attribute of one eye; ``draw`` is a function of this record and the picture's size alone."""

    seed: int  # of all details that have no field of their own: the course of a vessel, the place of a lesion
    patient_id: str
    eye: str  # left or right
    age: float  # years
    sex: str
    dr_grade: int  # ICDR 0-4
    dme: int  # hard exudates within one disc diameter of the fovea
    glaucoma: str  # no, suspect, glaucoma

    fovea: tuple[float, float]  # mm
    disc_fovea_mm: float
    disc_fovea_angle: float  # degrees by which the fovea lies below the disc centre
    disc_size: tuple[float, float]  # width, height, mm
    disc_tilt: float  # degrees
    vcdr: float  # vertical cup-to-disc ratio
    vcdr_before: float  # the same before any glaucomatous loss
    rim_notch: bool  # focal loss at the inferotemporal rim
    peripapillary_atrophy: float  # width of the temporal crescent, mm; 0 none
    nerve_fibre_defect: float  # degrees of the disc's circumference; 0 none
    disc_haemorrhage: bool

    vein_um: float  # calibre of the temporal veins at the disc, micrometres
    arteriole_venule_ratio: float
    junction_exponent: float  # x of d0**x = d1**x + d2**x; Murray: 3
    tortuosity: float  # root mean square deviation of a vessel's heading, radians
    arcade_mm: tuple[float, float]  # length over which the superior and inferior arcades turn temporally
    beaded_quadrants: tuple[int, ...]  # with venous beading, indices of QUADRANTS
    irma_quadrants: tuple[int, ...]  # with intraretinal microvascular abnormalities

    microaneurysms: int
    haemorrhages: tuple[int, int, int, int]  # per quadrant
    flame_share: float  # share of the haemorrhages in the nerve-fibre layer
    exudate_clusters: int
    soft_exudates: int
    neovascular_disc: bool
    neovascular_elsewhere: int
    preretinal_haemorrhage: bool
    vitreous_haemorrhage: bool
    drusen: int

    tone: str  # name in TONES
    colour: tuple[float, float, float]  # background RGB, 0-255
    melanin: float  # 0 (blond) to 1 (dark)
    tessellation: float  # visibility of the choroidal vessels, 0-1
    macular_pigment: float  # 0-1
    sheen: float  # nerve-fibre and foveal reflexes of the young, 0-1

    blur_mm: float  # standard deviation of the point spread
    haze: float  # scattered light of a lens opacity, 0-1
    glow: float  # bright crescent at the border of the field, 0-1
    glow_angle: float  # degrees
    vignette: float  # loss of light at the border, 0-1
    illumination: tuple[float, float]  # gradient of the light across the field, fraction per field radius
    field_cut: float  # share of the height cut off above and below by the camera's mask
    noise: float  # standard deviation of the sensor noise, 0-255

    @property
    def disc(self) -> tuple[float, float]:
        """Centre of the disc, mm in the left-eye frame."""
        angle = np.deg2rad(self.disc_fovea_angle)
        return (
            self.fovea[0] - self.disc_fovea_mm * float(np.cos(angle)),
            self.fovea[1] - self.disc_fovea_mm * float(np.sin(angle)),
        )

    @property
    def rim_mm(self) -> dict[str, float]:
        """Width of the neuroretinal rim, mm: inferior, superior, nasal, temporal.

        In health inferior > superior > nasal > temporal (Jonas, Gusek & Naumann, Invest Ophthalmol Vis Sci 1988,
        29:1151); glaucoma takes most from the inferior rim, then the superior, nasal and temporal.
        """
        half_width, half_height = self.disc_size[0] / 2, self.disc_size[1] / 2
        healthy = 1 - self.vcdr_before
        superior = 0.92 * healthy * half_height
        rim = {
            "inferior": 1.08 * healthy * half_height,
            "superior": superior,
            "nasal": min(0.94 * superior, 0.85 * half_width),
            "temporal": min(0.70 * superior, 0.60 * half_width),
        }
        # Of the vertical loss the inferior pole bears the larger part; shares chosen so that the order of loss holds.
        vertical = (self.vcdr - self.vcdr_before) * 2 * half_height
        share = {"inferior": 0.55, "superior": 0.45, "nasal": 0.34, "temporal": 0.24}
        return {pole: max(width - share[pole] * vertical, 0.02) for pole, width in rim.items()}

    def cohort_row(self) -> dict[str, Any]:
        """The columns of the cohort schema that the phantom knows; pixels, hashes and split are the ingest's.

        ``truth`` is a JSON object: positions as fractions of the picture (origin top left, as displayed), sizes as
        fractions of its side, lesion counts and areas (share of the field) per class, and every field of the record.
        """
        mirror = -1.0 if self.eye == "right" else 1.0
        counts, areas = lesion_loads(self)
        truth = {
            "disc_x": 0.5 + mirror * self.disc[0] / FIELD_MM,
            "disc_y": 0.5 + self.disc[1] / FIELD_MM,
            "disc_side": self.eye,
            "disc_width": self.disc_size[0] / FIELD_MM,
            "disc_height": self.disc_size[1] / FIELD_MM,
            "fovea_x": 0.5 + mirror * self.fovea[0] / FIELD_MM,
            "fovea_y": 0.5 + self.fovea[1] / FIELD_MM,
            "vcdr": self.vcdr,
            "rim_mm": self.rim_mm,
            "lesion_counts": dict(zip(LESION_CLASSES[1:], counts, strict=True)),
            "lesion_areas": dict(zip(LESION_CLASSES[1:], areas, strict=True)),
            **{name: value for name, value in asdict(self).items() if name not in _COLUMNS},
        }
        return {
            "patient_id": self.patient_id,
            "eye": self.eye,
            "age": self.age,
            "sex": self.sex,
            "dr_grade": self.dr_grade,
            "dme": self.dme,
            "glaucoma": self.glaucoma,
            "vcdr": self.vcdr,
            "findings": self.findings(),
            "truth": json.dumps({key: _rounded(value) for key, value in truth.items()}),
        }

    def findings(self) -> list[str]:
        """Codes of ``cohort.findings.FINDINGS`` that a reader should find, in the order of that vocabulary."""
        present = {
            "microaneurysm": self.microaneurysms > 0,
            "haemorrhage": sum(self.haemorrhages) > 0,
            "hard_exudate": self.exudate_clusters > 0,
            "soft_exudate": self.soft_exudates > 0,
            "irma": bool(self.irma_quadrants),
            "venous_beading": bool(self.beaded_quadrants),
            "neovascularisation": self.neovascular_disc or self.neovascular_elsewhere > 0,
            "vitreous_haemorrhage": self.vitreous_haemorrhage,
            "preretinal_haemorrhage": self.preretinal_haemorrhage,
            "macular_oedema": self.dme == 1,
            "drusen": self.drusen > 0,
            "cataract": self.haze > 0.45,
            "tessellated_fundus": self.tessellation > 0.6,
            "rim_notch": self.rim_notch,
            "peripapillary_atrophy": self.peripapillary_atrophy > 0,
            "nerve_fibre_layer_defect": self.nerve_fibre_defect > 0,
            "disc_haemorrhage": self.disc_haemorrhage,
        }
        return [code for code, there in present.items() if there]


_COLUMNS = ("patient_id", "eye", "age", "sex", "dr_grade", "dme", "glaucoma", "vcdr")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 7)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_rounded(item) for item in value]
    return value


def sample_records(
    n: int,
    seed: int,
    grade_weights: Sequence[float] = GRADE_WEIGHTS,
    glaucoma_weights: Sequence[float] = GLAUCOMA_WEIGHTS,
) -> list[PhantomRecord]:
    """``n`` eyes; patient by patient, nine in ten with both eyes, which share age, sex, pigment, camera and vessels.

    The defaults are enriched in disease (see GRADE_WEIGHTS and GLAUCOMA_WEIGHTS), so prevalences estimated on them
    are not those of any population. The first ``m`` of ``n`` records are those of ``sample_records(m, seed)``.

    Args:
        n: number of eyes, at least 1.
        seed: of everything.
        grade_weights: of the ICDR grades 0-4 of a patient's first eye; normalised here.
        glaucoma_weights: of no, suspect and glaucoma in a patient's first eye; normalised here.

    Raises:
        UsageError: weights of the wrong number, negative or all zero, or n < 1.
    """
    if n < 1:
        raise UsageError(f"n is {n}: a phantom cohort needs at least one eye")
    grades = _normalised("grade_weights", grade_weights, len(ICDR_GRADES))
    glaucoma = _normalised("glaucoma_weights", glaucoma_weights, 3)
    records: list[PhantomRecord] = []
    patient = 0
    while len(records) < n:
        rng = np.random.default_rng(np.random.SeedSequence([seed, patient]))
        records += _patient(rng, f"phantom-{seed}-{patient:06d}", grades, glaucoma)
        patient += 1
    return records[:n]


def _normalised(name: str, weights: Sequence[float], length: int) -> np.ndarray:
    array = np.asarray(weights, float)
    if array.shape != (length,) or (array < 0).any() or not array.sum() > 0:
        raise UsageError(f"{name} is {list(weights)}: give {length} weights that are not negative and not all zero")
    return array / array.sum()


def _normal(rng: np.random.Generator, mean: float, deviation: float, low: float, high: float) -> float:
    return float(np.clip(rng.normal(mean, deviation), low, high))


def _patient(
    rng: np.random.Generator, patient_id: str, grades: np.ndarray, glaucoma: np.ndarray
) -> list[PhantomRecord]:
    # Age and sex of ODIR-5K: 58.3 +- 11.2 years over 10, 54 % male (measured on its table).
    age = round(_normal(rng, 58, 11.5, 18, 90))
    sex = "male" if rng.random() < 0.54 else "female"
    first_grade = int(rng.choice(5, p=grades))
    first_glaucoma = int(rng.choice(3, p=glaucoma))
    tone = str(rng.choice(list(TONES), p=_TONE_WEIGHTS))
    brightness = rng.normal(-0.07, 0.10)
    colour = tuple(float(min(c * np.exp(brightness + rng.normal(0, 0.04)), 245)) for c in TONES[tone])
    melanin = float(rng.beta(3, 3))
    myopia = float(rng.beta(1.2, 3.2))
    # Tessellation grows with age and axial length and shrinks with pigment (Yan et al., Ophthalmology 2015, 122:133).
    tessellation = float(np.clip(0.9 * myopia + 0.006 * (age - 50) + rng.normal(0, 0.12) - 0.2 * (melanin - 0.5), 0, 1))
    shared = {
        "patient_id": patient_id,
        "age": float(age),
        "sex": sex,
        "tone": tone,
        "colour": colour,
        "melanin": melanin,
        "tessellation": tessellation,
        "macular_pigment": _normal(rng, 0.5, 0.18, 0.1, 1),
        "sheen": float(np.clip((48 - age) / 30 + rng.normal(0, 0.15), 0, 1)),
        # Venules near the disc are 100-180 um wide; AVR 2:3 (Hubbard et al., Ophthalmology 1999, 106:2269: means of
        # 0.6-0.85 by formula), narrowing with age (Wong et al., Invest Ophthalmol Vis Sci 2003, 44:4644).
        "vein_um": _normal(rng, 158, 13, 125, 190),
        "arteriole_venule_ratio": _normal(rng, 0.67 - 0.0008 * (age - 58), 0.035, 0.55, 0.78),
        # Between 3 (Murray 1926) and what adaptive optics measured: 2.59 in arteries (Luo et al., IOVS 2017, 58:2685).
        "junction_exponent": _normal(rng, 2.85, 0.12, 2.5, 3.1),
        "tortuosity": _normal(rng, 0.20 + 0.001 * (age - 58), 0.05, 0.08, 0.40),
        "vignette": _normal(rng, 0.30, 0.12, 0.05, 0.6),
        "field_cut": float(rng.choice([0.0, 0.04, 0.08], p=[0.78, 0.12, 0.10])),
        "noise": float(rng.uniform(1.0, 3.5)),
    }
    haze = float(np.clip(rng.beta(1.1, 6) + max(age - 60, 0) / 30 * rng.beta(1.2, 3), 0, 0.9))
    disc_height = _normal(rng, 1.83, 0.13, 1.5, 2.2)
    healthy_cup = _normal(rng, 0.37, 0.08, 0.15, 0.52)
    eyes = ["left", "right"] if rng.random() < 0.9 else [str(rng.choice(["left", "right"]))]
    records = []
    for index, eye in enumerate(eyes):
        grade, status = first_grade, first_glaucoma
        if index == 1:
            # The fellow eye has mostly the same grade, else one step beside it; glaucoma is mostly bilateral.
            if rng.random() > 0.75 and grade > 0:
                grade = int(np.clip(grade + rng.choice([-1, 1]), 0, 4))
            if rng.random() > 0.75 and status > 0:
                status = int(rng.choice([1, 2]))
        records.append(_eye(rng, eye, grade, status, shared, haze, disc_height, healthy_cup, myopia))
    return records


def _eye(
    rng: np.random.Generator,
    eye: str,
    grade: int,
    status: int,
    shared: dict[str, Any],
    haze: float,
    disc_height: float,
    healthy_cup: float,
    myopia: float,
) -> PhantomRecord:
    age = shared["age"]
    # Disc 1.76 x 1.92 mm (Jonas et al. 1988), 1.77 x 1.88 mm (Quigley et al., Arch Ophthalmol 1990, 108:51),
    # 1.6 x 1.8 mm (Drasdo & Fowler 1974).
    height = float(np.clip(disc_height + rng.normal(0, 0.04), 1.5, 2.2))
    width = height * _normal(rng, 0.89, 0.035, 0.78, 0.98)
    before = float(np.clip(healthy_cup + rng.normal(0, 0.025), 0.12, 0.55))
    # Health 0.3-0.4; suspicion above 0.5-0.6; glaucoma above 0.6-0.7 (97.5th percentile of vertical cup-to-disc ratio
    # is 0.7 in population surveys: Foster et al., Br J Ophthalmol 2002, 86:238).
    if status == 2:
        vcdr = _normal(rng, 0.77, 0.065, 0.66, 0.92)
    elif status == 1:
        vcdr = _normal(rng, 0.59, 0.03, 0.54, 0.65)
    else:
        vcdr = before
    defect = float(rng.uniform(12, 30)) if status == 2 and rng.random() < 0.5 else 0.0
    atrophy_chance = 0.12 + 0.45 * (status == 2) + 0.5 * (myopia > 0.5)
    lesions = _lesions(rng, grade, age)
    return PhantomRecord(
        **shared,
        seed=int(rng.integers(2**63)),
        eye=eye,
        dr_grade=grade,
        glaucoma=("no", "suspect", "glaucoma")[status],
        # Pictures are centred between disc and fovea; spread read off ODIR-5K.
        fovea=(_normal(rng, 1.35, 0.55, -0.1, 2.3), _normal(rng, 0.15, 0.40, -0.9, 1.1)),
        # 4.76 +- 0.34 mm, 2.65 +- 0.30 disc diameters (Jonas et al., PLoS ONE 2015, 10:e0138701); the fovea lies
        # 7.8 +- 3.6 degrees below (Jonas et al., PLoS ONE 2015, 10:e0141771).
        disc_fovea_mm=_normal(rng, 4.76, 0.30, 4.1, 5.5),
        disc_fovea_angle=_normal(rng, 7.0, 2.8, 0.5, 13),
        disc_size=(width, height),
        disc_tilt=_normal(rng, 0, 6, -18, 18),
        vcdr=vcdr,
        vcdr_before=min(before, vcdr),
        rim_notch=bool(status == 2 and rng.random() < 0.35),
        peripapillary_atrophy=float(rng.uniform(0.1, 0.28 + 0.4 * myopia)) if rng.random() < atrophy_chance else 0.0,
        nerve_fibre_defect=defect,
        disc_haemorrhage=bool(status == 2 and rng.random() < 0.08),
        arcade_mm=(_normal(rng, 2.9, 0.35, 2.1, 3.8), _normal(rng, 2.9, 0.35, 2.1, 3.8)),
        **lesions,
        blur_mm=float(np.clip(np.exp(rng.normal(np.log(0.022), 0.45)) + 0.05 * haze, 0.008, 0.12)),
        haze=float(np.clip(haze + rng.normal(0, 0.03), 0, 0.9)),
        glow=float(rng.uniform(0.2, 1)) if rng.random() < 0.3 else 0.0,
        glow_angle=float(rng.uniform(0, 360)),
        illumination=(float(rng.normal(0, 0.17)), float(rng.normal(0, 0.14))),
    )


def _lesions(rng: np.random.Generator, grade: int, age: float) -> dict[str, Any]:
    """Lesion counts by ICDR grade (Wilkinson et al., Ophthalmology 2003, 110:1677).

    Mild: microaneurysms alone. Severe: more than 20 haemorrhages in each of 4 quadrants, or venous beading in 2, or
    IRMA in 1, and no new vessels. Proliferative: new vessels, or vitreous or preretinal haemorrhage.
    """
    quadrants = np.arange(4)
    micro = (0, int(rng.integers(2, 10)), int(rng.integers(6, 26)), int(rng.integers(15, 50)), int(rng.integers(8, 45)))
    haemorrhages = np.zeros(4, int)
    beaded: list[int] = []
    irma: list[int] = []
    if grade == 2:
        where = rng.choice(quadrants, int(rng.integers(1, 4)), replace=False)
        haemorrhages[where] = rng.integers(1, 9, len(where))
    elif grade == 3:
        met = rng.random(3) < (0.60, 0.45, 0.50)
        if not met.any():
            met[rng.integers(3)] = True
        haemorrhages = rng.integers(21, 34, 4) if met[0] else rng.integers(4, 16, 4)
        beaded = sorted(rng.choice(quadrants, int(rng.integers(2, 4)), replace=False).tolist()) if met[1] else []
        irma = sorted(rng.choice(quadrants, int(rng.integers(1, 4)), replace=False).tolist()) if met[2] else []
    elif grade == 4:
        haemorrhages = rng.integers(3, 22, 4)
        beaded = sorted(rng.choice(quadrants, int(rng.integers(0, 4)), replace=False).tolist())
        irma = sorted(rng.choice(quadrants, int(rng.integers(0, 3)), replace=False).tolist())
    new = grade == 4
    disc, elsewhere = bool(new and rng.random() < 0.5), int(rng.integers(1, 4)) if new and rng.random() < 0.6 else 0
    preretinal, vitreous = bool(new and rng.random() < 0.40), bool(new and rng.random() < 0.15)
    if new and not (disc or elsewhere or preretinal or vitreous):
        disc = True
    exudates = int(rng.integers(1, 4 + grade)) if rng.random() < (0, 0, 0.55, 0.7, 0.65)[grade] else 0
    return {
        "dme": int(exudates > 0 and rng.random() < 0.5),
        "microaneurysms": micro[grade],
        "haemorrhages": tuple(int(count) for count in haemorrhages),
        "flame_share": float(rng.uniform(0.1, 0.4)),
        "exudate_clusters": exudates,
        "soft_exudates": int(rng.integers(1, 3 + 2 * (grade - 2)))
        if rng.random() < (0, 0, 0.3, 0.6, 0.5)[grade]
        else 0,
        "neovascular_disc": disc,
        "neovascular_elsewhere": elsewhere,
        "preretinal_haemorrhage": preretinal,
        "vitreous_haemorrhage": vitreous,
        # Any drusen: 10 % at 50, rising to over 25 % at 75 (Klein et al., Ophthalmology 1992, 99:933, larger drusen).
        "drusen": int(rng.integers(6, 60)) if rng.random() < np.clip((age - 42) / 110, 0, 0.35) else 0,
        "beaded_quadrants": tuple(beaded),
        "irma_quadrants": tuple(irma),
    }
