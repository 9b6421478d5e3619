"""Pictures beside the figures, of the first seeds and eyes: nothing is chosen."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retinalogos.contact_sheet import make_sheet
from retinalogos.generators.lesion_map import judging, maps
from retinalogos.generators.lesion_map.copies import CopyReport
from retinalogos.generators.lesion_map.examples import Examples
from retinalogos.generators.lesion_map.pipeline import LesionMapPipeline
from retinalogos.provenance import write_png

# Of each picture's columns: as many as grades.
_SHOWN = maps.GRADES


@dataclass(frozen=True)
class FirstMaps:
    """Maps, uint8 n×size×size, with the seeds of their styles and the words above them."""

    classes: np.ndarray
    seeds: list[int]
    labels: list[str]


def first_maps(pipeline: LesionMapPipeline, drawn: Examples, seeds: list[int], n: int) -> FirstMaps:
    """Maps of grades 0 to 4 in turn, from the first seeds; of a generator that draws none the first it rendered."""
    if pipeline.layout is None:
        return FirstMaps(drawn.classes[:n], seeds[:n], [f"of a training eye, seed {seed}" for seed in seeds[:n]])
    grades, firsts = [number % maps.GRADES for number in range(n)], list(range(n))
    labels = [f"grade {grade}, seed {seed}" for grade, seed in zip(grades, firsts, strict=True)]
    return FirstMaps(pipeline.draw(grades, firsts), firsts, labels)


def grid(path: Path, pipeline: LesionMapPipeline, first: FirstMaps) -> None:
    """Maps, and below them their photographs."""
    images = pipeline.render(first.classes, first.seeds)
    pictures, labels = [], []
    for start in range(0, len(images), maps.GRADES):
        row = slice(start, start + maps.GRADES)
        pictures += [*maps.to_rgb(first.classes[row]), *images[row]]
        labels += [*first.labels[row], *[""] * len(images[row])]
    _write(path, pictures, labels, maps.GRADES, {"seeds": f"{first.seeds[0]}-{first.seeds[-1]}"})


def beside_real(path: Path, training: Examples, drawn: Examples, pairs: int, notice: str) -> None:
    """Of each grade a row: training maps and photographs, then drawn ones; grades that one side lacks are left out.

    Of eyes with too few grades there is one row.
    """
    pictures, labels = [], []
    for grade in range(maps.GRADES) if training.by_grade else (None,):
        members = [each if grade is None else each.take(each.grades == grade) for each in (training, drawn)]
        if any(len(each) < pairs for each in members):
            continue
        for name, each in zip(("real", "drawn"), members, strict=True):
            for colours, image in zip(maps.to_rgb(each.classes[:pairs]), each.images[:pairs], strict=True):
                pictures += [colours, image]
                labels += [name if grade is None else f"{name}, grade {grade}", ""]
    if pictures:
        _write(path, pictures, labels, 4 * pairs, {"notice": notice})


def styles(path: Path, pipeline: LesionMapPipeline, first: FirstMaps, references: Examples, notice: str) -> None:
    """The first photographs across, the first maps down; each picture is a map in the photograph's style."""
    references = references.take(np.arange(min(_SHOWN, len(references))))
    taken = pipeline.style_of(references.images)
    pictures = [np.full_like(references.images[0], 255), *references.images]
    labels = ["in the style of", *(f"photograph {number + 1}" for number in range(len(references)))]
    for classes, label in list(zip(first.classes, first.labels, strict=True))[:_SHOWN]:
        pictures += [maps.to_rgb(classes), *pipeline.render(np.repeat(classes[None], len(taken), 0), styles=taken)]
        labels += [label, *([""] * len(taken))]
    _write(path, pictures, labels, 1 + len(taken), {"notice": notice})


def edits(path: Path, pipeline: LesionMapPipeline, classes: np.ndarray, seeds: list[int], margin: float) -> None:
    """Maps with lesions, their photographs, the maps without the largest lesion, and what becomes of the pictures."""
    columns: list[list[np.ndarray]] = []
    for before, seed in zip(classes, seeds, strict=True):
        after = judging.erase(before, judging.largest_lesion(before))
        if len(columns) == _SHOWN or (before == after).all():
            continue
        style = pipeline.styles([seed])
        image = pipeline.render(before[None], styles=style)[0]
        edited = pipeline.edit(image, before, after, style, margin)
        columns.append([maps.to_rgb(before), image, maps.to_rgb(after), edited])
    if columns:
        rows = ("map", "photograph", "edited map", "edited photograph")
        pictures = [column[row] for row in range(len(rows)) for column in columns]
        labels = [rows[row] if not place else "" for row in range(len(rows)) for place in range(len(columns))]
        _write(path, pictures, labels, len(columns), {})


def copies(path: Path, found: CopyReport, training: Examples, drawn: Examples, notice: str) -> None:
    """The drawn eyes that come closest to a training eye, above it."""
    pairs = found.pairs[:_SHOWN]
    if not pairs:
        return
    sides = (("drawn", drawn, [p.drawn for p in pairs]), ("training", training, [p.training for p in pairs]))
    pictures, labels = [], []
    for name, eyes, rows in sides:
        some = eyes.take(rows)
        known = np.where(some.classes == maps.UNKNOWN, np.uint8(maps.BG), some.classes)
        for shown in (maps.to_rgb(known), some.images):
            pictures += list(shown)
            labels += [f"{name}, {pair.ratio:.2f} of the limit" for pair in pairs]
    _write(path, pictures, labels, len(pairs), {"notice": notice})


def _write(path: Path, pictures: list[np.ndarray], labels: list[str], columns: int, record: dict[str, str]) -> None:
    write_png(path, make_sheet(pictures, labels, columns), record)
