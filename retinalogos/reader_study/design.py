"""What a reader study shows, what it asks, and to whom in which order."""

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from retinalogos.cohort.shards import Cohort, decode_image
from retinalogos.errors import DataError, UsageError
from retinalogos.metrics.realism import matched_draw

Kind = Literal["real", "synthetic"]
KINDS: tuple[Kind, Kind] = ("real", "synthetic")

# The aspects of the paper's study (RetinaLogos, arXiv 2505.12887, table of the ophthalmologists' ratings).
ASPECTS = {
    "disc": "Optic disc: structure and position",
    "macula": "Macula: structure and position",
    "vessels": "Vessels: structure and position",
    "nerve_fibre_layer": "Nerve fibre layer: structure",
    "lesions": "Lesions: structure and position",
    "overall": "Overall quality",
}
# The paper's means lie between 1 and 3; the words that its readers were given are not published, these are ours.
SCORES = {1: "poor", 2: "fair", 3: "good"}
ROLES = {
    "ophthalmologist": "Ophthalmologist",
    "trainee": "Ophthalmologist in training",
    "grader": "Optometrist, orthoptist or trained grader",
    "other": "None of these",
}

# Pictures of which half are real and half synthetic, in an order drawn by lot: a reader who tires or learns meets as
# many of either kind at every stage. Readers are told nothing of blocks.
BLOCK = 8
_TEST = "test"
_MANIFEST, _PICTURES, ANSWERS = "study.json", "pictures", "answers"
_NAME = re.compile(r"\w[\w .-]{0,39}")


class Picture(BaseModel):
    """A picture of the study, and what it really is. No patient, not even by pseudonym."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[0-9a-f]{12}$")
    kind: Kind
    image_id: str
    source: str
    generator: str | None
    dr_grade: int | None
    glaucoma: str | None


@dataclass(frozen=True)
class Trial:
    """One picture before one reader; ``repeat``: the reader has seen it before."""

    picture: str
    repeat: bool


class Study(BaseModel):
    """A study as ``study.json`` holds it. That file tells real from synthetic: readers must not see it.

    Attributes:
        seed: of the choice of pictures and of every order.
        size: pixels of the side of every picture.
        repeats: pictures of each kind that every reader sees a second time.
        matched: whether real and synthetic pictures have the same mix of grade and glaucoma status.
        pictures: as many real as synthetic.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    seed: int
    size: int
    repeats: int
    matched: bool
    pictures: tuple[Picture, ...]

    @property
    def identity(self) -> str:
        """Hash of the study; every file of answers names it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    def order(self, reader: str) -> list[Trial]:
        """The trials of a reader (by :func:`reader_key`): drawn by lot in balanced blocks, with the repeats.

        A picture that comes twice stands in about the first third, and again in the last third among all others.
        """
        rng = np.random.default_rng(list(hashlib.sha256(f"{self.identity}:{reader}".encode()).digest()))
        drawn = {kind: rng.permutation([p.name for p in self.pictures if p.kind == kind]).tolist() for kind in KINDS}
        trials: list[Trial] = []
        for start in range(0, len(drawn["real"]), BLOCK // 2):
            block = [name for kind in KINDS for name in drawn[kind][start : start + BLOCK // 2]]
            trials += [Trial(name, repeat=False) for name in rng.permutation(block).tolist()]
        last_third = len(trials) - len(trials) // 3
        for kind in KINDS:
            for name in rng.permutation(drawn[kind][: _third(len(drawn[kind]))]).tolist()[: self.repeats]:
                # In a study of few pictures the first sight itself may stand in the last third.
                earliest = max(last_third, trials.index(Trial(name, repeat=False)) + 1)
                trials.insert(int(rng.integers(earliest, len(trials) + 1)), Trial(name, repeat=True))
        return trials


def picture_path(folder: Path, name: str) -> Path:
    """Where the picture of that name lies in the folder of a study."""
    return folder / _PICTURES / f"{name}.png"


def reader_name(text: str) -> str:
    """A reader's name or pseudonym as it is kept: composed Unicode, single spaces.

    Raises:
        UsageError: empty, longer than 40 characters, or with others than letters, digits, space, dot, dash, underscore.
    """
    name = unicodedata.normalize("NFC", " ".join(text.split()))
    if not _NAME.fullmatch(name):
        raise UsageError(
            "a name has 1 to 40 letters, digits, spaces, dots, dashes or underscores, and starts with a letter or digit"
        )
    return name


def reader_key(name: str) -> str:
    """What names the reader in files and orders: the same for every spelling in upper and lower case."""
    return hashlib.sha256(reader_name(name).casefold().encode()).hexdigest()[:12]


def open_study(folder: Path) -> Study:
    """Reads the study in a folder.

    Raises:
        UsageError: there is none.
        DataError: it is damaged, or lacks a picture.
    """
    path = folder / _MANIFEST
    try:
        study = Study.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"{folder} holds no reader study (no {_MANIFEST}); make one with `retinalogos reader-study prepare`"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(f"{path} is damaged: {place}: {first['msg']}; prepare the study anew") from None
    missing = [p.name for p in study.pictures if not picture_path(folder, p.name).is_file()]
    if missing:
        raise DataError(f"{picture_path(folder, missing[0])} is missing, and {len(missing) - 1} more; prepare it anew")
    return study


def prepare(
    real: Path,
    synthetic: Path,
    folder: Path,
    *,
    images: int,
    repeats: int,
    seed: int,
    size: int | None = None,
    matched: bool = True,
) -> Study:
    """Draws the pictures of a study by lot and writes them so that nothing but what they show tells them apart.

    Every picture is decoded, brought to the same size, and written as a PNG without compression and without any
    metadata: all files have the same number of bytes. Of a patient, and of a group of duplicates, at most one is taken.

    Args:
        real: folder of a cohort; its test split is drawn from.
        synthetic: folder of a cohort of synthetic pictures.
        folder: to write; new or empty.
        images: pictures of each kind.
        repeats: pictures of each kind that every reader sees twice; at most a third of them.
        seed: another seed, another choice and other orders.
        size: pixels of the side; None for that of the smallest picture chosen.
        matched: the same mix of grade and glaucoma status in both kinds, so that disease does not tell them apart.

    Raises:
        UsageError: there are not so many pictures, or an argument does not fit.
        DataError: a cohort holds pictures of the wrong kind.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already and not an empty folder; name a new one")
    if repeats > _third(images):
        raise UsageError(f"--repeats {repeats}: at most a third of --images, here {_third(images)}")
    rng = np.random.default_rng(seed)
    cohorts = {"real": Cohort(real), "synthetic": Cohort(synthetic)}
    rows = {
        "real": _candidates(cohorts["real"], "real", rng),
        "synthetic": _candidates(cohorts["synthetic"], "synthetic", rng),
    }
    chosen = _draw(rows["real"], rows["synthetic"], images, matched, rng)
    smallest = min(min(row["width"], row["height"]) for row in [*chosen["real"], *chosen["synthetic"]])
    if size is not None and size > smallest:
        raise UsageError(f"--size {size}: the smallest picture has {smallest} pixels, and none is enlarged")
    # Names by lot, so that neither they nor their order tell anything.
    names = iter(_names(2 * images, rng))
    pictures = [
        Picture(name=next(names), kind=kind, **{key: row[key] for key in Picture.model_fields if key in row})
        for kind in KINDS
        for row in chosen[kind]
    ]
    study = Study(
        seed=seed,
        size=size or smallest,
        repeats=repeats,
        matched=matched,
        pictures=tuple(sorted(pictures, key=lambda picture: picture.name)),
    )
    # The folder holds the key to the study, and pictures of patients.
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    (folder / _PICTURES).mkdir()
    (folder / ANSWERS).mkdir()
    for kind in KINDS:
        of_id = {picture.image_id: picture for picture in study.pictures if picture.kind == kind}
        for row in cohorts[kind].rows(("image_id", "image")):
            if row["image_id"] in of_id:
                image = Image.fromarray(decode_image(row["image"]["bytes"], study.size))
                image.save(picture_path(folder, of_id[row["image_id"]].name), "PNG", compress_level=0)
    # Last, so that a folder without it is no study.
    (folder / _MANIFEST).write_text(study.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return study


def _third(count: int) -> int:
    return count // 3


def _candidates(cohort: Cohort, kind: Kind, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Rows in an order by lot, one per patient and per group of duplicates."""
    columns = (
        *("image_id", "patient_id", "duplicate_group", "source", "generator", "dr_grade", "glaucoma"),
        *("width", "height"),
    )
    rows = cohort.table(columns, _TEST if kind == "real" else None).to_pylist()
    for row in rows:
        if (row["generator"] is None) == (kind == "synthetic"):
            is_what = "a photograph" if kind == "synthetic" else "synthetic"
            raise DataError(f"--{kind} {cohort.folder}: picture {row['image_id']} is {is_what}; name another cohort")
    seen: set[str] = set()
    kept = []
    for index in rng.permutation(len(rows)).tolist():
        groups = {f"patient {rows[index]['patient_id']}", f"picture {rows[index]['duplicate_group'] or index}"}
        if not groups & seen:
            kept.append(rows[index])
        seen |= groups
    return kept


def _draw(
    real: Sequence[dict[str, Any]],
    synthetic: Sequence[dict[str, Any]],
    images: int,
    matched: bool,
    rng: np.random.Generator,
) -> dict[Kind, list[dict[str, Any]]]:
    """``images`` rows of each kind, the k-th of both with the same grade and glaucoma status where ``matched``."""

    def strata(rows: Sequence[dict[str, Any]]) -> list[str]:
        return [f"grade {row['dr_grade']}, glaucoma {row['glaucoma']}" if matched else "any" for row in rows]

    asked = {"real": strata(real), "synthetic": strata(synthetic)}
    drawn = matched_draw(asked["real"], asked["synthetic"], int(rng.integers(2**32)))
    if len(drawn[0]) < images:
        same = " of the same grade and glaucoma status in both cohorts" if matched else ""
        way_out = "lower --images, or take any with --unmatched" if matched else "lower --images"
        raise UsageError(
            f"--images {images}: only {len(drawn[0])} pictures of each kind, one a patient,{same} are there; {way_out}"
        )
    # In the order of the stratum the two draws stand in pairs.
    first, second = (
        sorted(indices.tolist(), key=asked[kind].__getitem__) for kind, indices in zip(KINDS, drawn, strict=True)
    )
    pairs = rng.permutation(len(first))[:images].tolist()
    return {"real": [real[first[pair]] for pair in pairs], "synthetic": [synthetic[second[pair]] for pair in pairs]}


def _names(count: int, rng: np.random.Generator) -> Iterator[str]:
    seen: set[str] = set()
    while len(seen) < count:
        name = f"{int(rng.integers(2**48)):012x}"
        if name not in seen:
            seen.add(name)
            yield name
