"""What stands on the page: each section's data, taken from the folders that the steps wrote."""

import csv
import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from pydantic import Field

from components.report import charts, layout
from components.report.figures import Figure, Gate, Results, Verdict, as_csv, every, judge, number
from components.report.layout import Filled, Line, words
from components.step import Params
from retinalogos.cohort.schema import EYES, GLAUCOMA, ICDR_GRADES, SPLITS
from retinalogos.cohort.shards import Cohort, decode_image
from retinalogos.errors import DataError
from retinalogos.pages import data_uri, environment, jpeg_uri, script, spread
from retinalogos.provenance import NOTICE, software

SECTIONS = (
    ("summary", "Summary"),
    ("pictures", "Pictures"),
    ("assessment", "Assessment"),
    ("classification", "Classifiers"),
    ("training", "Training"),
    ("captions", "Captions"),
    ("validation", "Validation"),
    ("cohort", "Cohort"),
    ("provenance", "Provenance"),
)
# What makes tables, curves and pictures of both pages answer to a reader.
SCRIPT = Path(__file__).with_name("page.js")
TEMPLATE = Path(__file__).with_name("template.html.j2")
Row = Mapping[str, Any]
Picture = dict[str, str]


class PageParams(Params):
    """What the steps that write a page have in common."""

    training_samples: int = Field(ge=0, description="sample pictures of each training stage")
    max_megabytes: float = Field(gt=0, description="a larger page stops the step")
    gates: dict[str, Gate] = Field(
        min_length=1,
        description="limits that the generator must keep, on figures that begin with the name of a part of the "
        "results; `register` acts on them",
    )


def verdicts_of(params: PageParams, results: Results) -> list[Verdict]:
    """How the gates went, by name: Kubeflow Pipelines hands mappings on in an order of its own."""
    return [judge(name, gate, results) for name, gate in sorted(params.gates.items())]


def render(
    context: Mapping[str, Any], template: Path = TEMPLATE, sections: Sequence[tuple[str, str]] = SECTIONS
) -> str:
    """A page as HTML; a name that the template asks for and the context lacks is an error.

    Args:
        context: what stands on it.
        template: of the page, which builds on base.html.j2 here.
        sections: id and name of each, for the line of links.
    """
    templates = environment(template.parent, TEMPLATE.parent)
    templates.filters["number"] = number
    page = {"sections": sections, "notice": NOTICE, "software": software(), "script": script(SCRIPT), **context}
    return templates.get_template(template.name).render(page)


def write(
    folder: Path, html: str, results: Results, verdicts: Sequence[Verdict], max_megabytes: float, lower: str
) -> dict[str, float | int | bool]:
    """Writes a page as ``index.html``, its figures as ``figures.csv`` and its gates as ``gates.json``.

    Args:
        folder: to make.
        html: the page.
        results: all figures.
        verdicts: of the gates.
        max_megabytes: a larger page is refused.
        lower: parameters that make it smaller, for the error.

    Returns:
        Metrics of the step.

    Raises:
        DataError: the page is too large.
    """
    megabytes = len(html.encode()) / 1e6
    if megabytes > max_megabytes:
        raise DataError(f"the page is {megabytes:.1f} MB, and report.max_megabytes is {max_megabytes:g}; lower {lower}")
    folder.mkdir(parents=True)
    (folder / "index.html").write_text(html, encoding="utf-8")
    (folder / "figures.csv").write_text(as_csv(every(results)), encoding="utf-8")
    # For `register`, and for whoever reads by machine.
    entries = [dataclasses.asdict(verdict) for verdict in verdicts]
    (folder / "gates.json").write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return {
        "gates": len(verdicts),
        "gates_passed": sum(verdict.passed for verdict in verdicts),
        "megabytes": round(megabytes, 3),
        **{f"gate.{verdict.name}": verdict.passed for verdict in verdicts},
    }


def csv_uri(text: str) -> str:
    """A table as a data URI: a link to it saves it."""
    return data_uri("text/csv", text.encode())


def kind(row: Row) -> str | None:
    """The class that an eye stands under on the page: glaucoma first, then its ICDR grade."""
    if row["glaucoma"] == "glaucoma":
        return "glaucoma"
    if row["dr_grade"] is not None:
        return ICDR_GRADES[row["dr_grade"]]
    return None


# Pictures beside a prompt: more leave no room for its words.
_OF_A_PROMPT = 3
KINDS = (*ICDR_GRADES, "glaucoma")


def described(row: Row) -> str:
    """An eye in a few words."""
    parts = [f"{row['eye']} eye" if row["eye"] else None, kind(row)]
    return ", ".join(part for part in parts if part) or "eye without labels"


class Album:
    """Pictures of a cohort by image_id, read in one pass over the shards."""

    def __init__(self, cohort: Cohort, wanted: Iterable[str], size: int):
        self._uris: dict[str, str] = {}
        chosen = set(wanted)
        if chosen:
            for row in cohort.rows(("image_id", "image")):
                if row["image_id"] in chosen:
                    # Twice the size on the page: sharp on dense screens and on paper.
                    self._uris[row["image_id"]] = jpeg_uri(decode_image(row["image"]["bytes"]), 2 * size)

    def picture(self, row: Row, real: bool, caption: str = "") -> Picture:
        """The picture of a row, with the text that stands for it where it is not seen."""
        says = f"{'real' if real else 'synthetic'} photograph: {described(row)}"
        return {"uri": self._uris[row["image_id"]], "alt": says, "caption": caption}


def _metadata(cohort: Cohort, split: str | None = None) -> list[dict[str, Any]]:
    columns = ("image_id", "eye", "dr_grade", "glaucoma", "prompt", "seed", "split")
    rows: list[dict[str, Any]] = cohort.table(columns, split).to_pylist()
    return rows


def pictures(real: Cohort, synthetic: Cohort, per_group: int, prompts: int, size: int) -> dict[str, Any]:
    """Real test eyes beside synthetic ones by class, and synthetic ones by prompt."""
    rows = {"real": _metadata(real, "test"), "synthetic": _metadata(synthetic)}
    by_kind = {name: {source: [row for row in rows[source] if kind(row) == name] for source in rows} for name in KINDS}
    chosen = {
        name: {source: spread(members, per_group) for source, members in groups.items()}
        for name, groups in by_kind.items()
    }
    # Class by class: a cohort lists its classes in turn, and even distances over turns can meet one class alone.
    turns = [row for groups in by_kind.values() for row in groups["synthetic"]]
    by_prompt: dict[str, list[dict[str, Any]]] = {}
    for row in turns + [row for row in rows["synthetic"] if kind(row) not in KINDS]:
        by_prompt.setdefault(row["prompt"] or "no prompt recorded", []).append(row)
    shown = {prompt: by_prompt[prompt][:_OF_A_PROMPT] for prompt in spread(list(by_prompt), prompts)}
    albums = {
        "real": Album(real, (row["image_id"] for groups in chosen.values() for row in groups["real"]), size),
        "synthetic": Album(
            synthetic,
            [
                *(row["image_id"] for groups in chosen.values() for row in groups["synthetic"]),
                *(row["image_id"] for group in shown.values() for row in group),
            ],
            size,
        ),
    }
    beside = [
        {
            "name": words(name),
            "real_count": len(by_kind[name]["real"]),
            "synthetic_count": len(by_kind[name]["synthetic"]),
            **{
                source: [
                    albums[source].picture(row, source == "real", f"{row['eye']} eye" if row["eye"] else "")
                    for row in chosen[name][source]
                ]
                for source in rows
            },
        }
        for name in KINDS
        if by_kind[name]["real"] or by_kind[name]["synthetic"]
    ]
    grids = [
        {
            "prompt": prompt,
            "pictures": [albums["synthetic"].picture(row, False, f"seed {row['seed']}") for row in group],
        }
        for prompt, group in shown.items()
    ]
    return {"beside": beside, "prompts": grids}


def figures_section(
    results: Results, folder: Path, tables: Sequence[Filled], curves: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Tables with interval bars, charts, every figure by its name, and the pictures that ``results.json`` names."""
    return {
        "tables": [with_bars(table) for table in tables],
        "charts": curves,
        "names": list(every(results)),
        "csv": csv_uri(as_csv(every(results))),
        "pictures": _named_pictures(results, folder),
    }


def with_bars(table: Filled) -> dict[str, Any]:
    """A table as the templates show it: each figure with its interval, in words and as a bar."""
    lines = [(line, _with_bars(line, figures)) for line, figures in table.lines]
    return {"title": table.title, "columns": table.columns, "lines": lines}


def _with_bars(line: Line, figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """The figures of a line with bars on one scale; shares on the scale from 0 to 1."""
    ends = [end for figure in figures for end in (figure.low, figure.value, figure.high) if end is not None]
    low, high = line.scale or ((0.0, 1.0) if line.percent else (min(0.0, *ends), max(0.0, *ends)))
    return [
        {
            "value": number(figure.value, line.percent),
            "interval": figure.interval(line.percent),
            "figure": figure,
            "bar": charts.interval_bar(figure, low, high),
        }
        for figure in figures
    ]


def _named_pictures(results: object, folder: Path) -> list[Picture]:
    if isinstance(results, Mapping):
        return [picture for entry in results.values() for picture in _named_pictures(entry, folder)]
    if isinstance(results, list):
        return [picture for entry in results for picture in _named_pictures(entry, folder)]
    if isinstance(results, str) and results.endswith(".png") and (folder / results).is_file():
        if Path(results).stem in layout.DRAWN_ANEW:
            return []
        return [{"uri": data_uri("image/png", (folder / results).read_bytes()), "alt": layout.picture_words(results)}]
    return []


def closest_pairs(memorisation: Results, real: Cohort, synthetic: Cohort, size: int) -> list[dict[str, Any]]:
    """The most suspicious pairs of synthetic and training images, and of test and training images beside them.

    Args:
        memorisation: that part of the results of `assess`.
        real: cohort of training and test images.
        synthetic: cohort of the synthetic ones.
        size: pixels of a picture on the page.
    """
    pairs = {key: memorisation.get(key, []) for key in ("closest", "closest_real")}
    trained = {pair["train_id"] for found in pairs.values() for pair in found}
    of_real = Album(real, trained | {pair["image_id"] for pair in pairs["closest_real"]}, size)
    made = Album(synthetic, (pair["image_id"] for pair in pairs["closest"]), size)
    rows = {row["image_id"]: row for cohort in (real, synthetic) for row in _metadata(cohort)}
    return [
        {
            "kind": kind,
            "pairs": [
                {
                    "image": album.picture(rows[pair["image_id"]], album is of_real),
                    "train": of_real.picture(rows[pair["train_id"]], True),
                    "flagged": pair["ratio"] < 1,
                    "says": f"{_NEAR[pair['space']]}: {number(pair['ratio'])} × the limit",
                }
                for pair in pairs[key]
            ],
        }
        for kind, key, album in (("SYNTHETIC", "closest", made), ("REAL TEST", "closest_real", of_real))
        if pairs[key]
    ]


# Where two images were found near, in words.
_NEAR = {"pixels": "by pixels", "features": "by features", "aligned": "laid over each other"}


def captioned(folder: Path, captions: Mapping[str, str]) -> list[Picture]:
    """Pictures of a folder with what each shows, by file; those that are there: few eyes do not make all of them."""
    return [
        {"uri": data_uri(f"image/{Path(file).suffix[1:]}", (folder / file).read_bytes()), "alt": says}
        for file, says in captions.items()
        if (folder / file).is_file()
    ]


# Charts of a training stage: title → curve → its name in the log.
_CHARTS = {
    "loss": {"training": "loss", "validation": "validation_loss"},
    "gradient norm": {"gradient norm": "gradient_norm"},
}


def training(
    name: str, log: Path, samples: int, width: int, charts_of: Mapping[str, Mapping[str, str]] = _CHARTS
) -> dict[str, Any]:
    """Curves and sample pictures of a training stage.

    Args:
        name: of the stage.
        log: folder that it wrote.
        samples: pictures of its progress.
        width: pixels of one at most.
        charts_of: title of a chart → its curves → their names in the log.
    """
    records = [json.loads(line) for line in (log / "log.jsonl").read_text(encoding="utf-8").splitlines()]

    def curve(key: str) -> list[tuple[float, float]]:
        return [(row["step"], row[key]) for row in records if row.get(key) is not None]

    drawn = {
        title: charts.line_chart({label: curve(key) for label, key in curves.items()}, "step", title)
        for title, curves in charts_of.items()
    }
    prompts = log / "prompts.json"
    samples_drawn = []
    for path in spread(sorted((log / "samples").glob("*.png")), samples):
        strip = np.asarray(Image.open(path).convert("RGB"))
        step = int(path.stem.removeprefix("step-"))
        # Small pictures are shown at no more than twice their size: beyond, one sees pixels and not an eye.
        samples_drawn.append({"step": step, "uri": jpeg_uri(strip, width), "width": min(width, 2 * strip.shape[1])})
    return {
        "name": name,
        "charts": [{"name": label, "svg": chart} for label, chart in drawn.items() if chart],
        "samples": samples_drawn,
        "prompts": json.loads(prompts.read_text(encoding="utf-8")) if prompts.is_file() else [],
    }


def captions(
    cohort: Cohort, folder: Path, curated: Path, purification: Mapping[str, Any], examples: int, size: int
) -> dict[str, Any]:
    """Images with their captions, and the captions that were dropped, by rule."""
    written = pq.read_table(folder / "captions.parquet").to_pylist()
    text = {(row["image_id"], row["granularity"], row["wording"]): row for row in written}
    of_image: dict[str, list[dict[str, Any]]] = {}
    for row in written:
        of_image.setdefault(row["image_id"], []).append(row)
    groups: dict[str | None, list[dict[str, Any]]] = {}
    for row in _metadata(cohort, "train"):
        if row["image_id"] in of_image:
            groups.setdefault(kind(row), []).append(row)
    # One eye of each class first, so that rare findings are seen too.
    chosen = [spread(groups[name], 1)[0] for name in (*KINDS, None) if name in groups][:examples]
    album = Album(cohort, (row["image_id"] for row in chosen), size)
    kept = pq.read_metadata(curated / "captions.parquet").num_rows
    engines = json.loads((folder / "captions.json").read_text(encoding="utf-8"))["engines"]
    asked = [f"{one['engine']}{', model ' + one['model'] if 'model' in one else ''}" for one in engines]
    by = "; ".join(f"{name}, prompt {one['prompt_version']}" for name, one in zip(asked, engines, strict=True))
    dropped = _dropped(curated / "dropped.csv")
    first = {name: members[0] for name, members in dropped.items()}
    return {
        "says": f"{len(written):,} captions of {len(of_image):,} images were written ({by}); {kept:,} were kept for "
        "the last stage of training. How they read, and what a model was asked, is on the page of the step caption "
        "(metrics/captions). An eye of each class, with its first coarse and fine caption:",
        "examples": [
            {
                "picture": album.picture(row, True),
                "texts": [
                    entry
                    for granularity in ("coarse", "fine")
                    for entry in of_image[row["image_id"]]
                    if entry["granularity"] == granularity and entry["wording"] == 0
                ],
            }
            for row in chosen
        ],
        "rules": [
            {
                "name": words(name),
                "count": len(members),
                "detail": first[name]["detail"],
                # What may name a person is not shown again.
                "text": ""
                if name == "identifier"
                else text.get(
                    (first[name]["image_id"], first[name]["granularity"], int(first[name]["wording"])), {"text": ""}
                )["text"],
            }
            for name, members in sorted(dropped.items(), key=lambda item: (-len(item[1]), item[0]))
        ],
        "purification": purification,
    }


def ablation(results: Results, assessment: Results) -> list[dict[str, Any]]:
    """Figures of the generators with and without purification; none where the second was not trained.

    Args:
        results: of `ablate`.
        assessment: of the generator with purification.
    """
    if not results["enabled"]:
        return []
    return [with_bars(table) for table in layout.ablation(assessment, results["without"])]


def _dropped(path: Path) -> dict[str, list[dict[str, str]]]:
    rules: dict[str, list[dict[str, str]]] = {}
    if not path.exists():  # nothing was dropped
        return rules
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            rules.setdefault(row["rule"], []).append(row)
    return rules


def cohort_section(cohort: Cohort) -> dict[str, Any]:
    """Where the real images come from and what they hold, by split."""
    meta = cohort.meta
    rows = cohort.table(("patient_id", "split", "eye", "dr_grade", "glaucoma")).to_pylist()
    splits = [split for split in SPLITS if split in meta["splits"]]
    sources = "; ".join(f"{source} ({', '.join(licences)})" for source, licences in meta["sources"].items())
    patients = len({row["patient_id"] for row in rows})

    def count(column: str, values: Iterable[tuple[Any, str]]) -> list[tuple[str, list[int]]]:
        counts = Counter((row[column], row["split"]) for row in rows)
        table = [(name, [counts[value, split] for split in splits]) for value, name in [*values, (None, "not known")]]
        return [(name, numbers) for name, numbers in table if any(numbers)]

    return {
        "name": meta["name"],
        "hash": meta["content_sha256"][:12],
        "says": f"{len(cohort):,} images of {patients:,} patients; source and licence: {sources}. All images of a "
        "patient, and duplicates, are in one split.",
        "tables": [
            {"title": "diabetic retinopathy", "splits": splits, "rows": count("dr_grade", enumerate(ICDR_GRADES))},
            {"title": "glaucoma", "splits": splits, "rows": count("glaucoma", ((g, g) for g in GLAUCOMA))},
            {"title": "eye", "splits": splits, "rows": count("eye", ((eye, eye) for eye in EYES))},
        ],
    }


def validation(name: str, folder: Path) -> dict[str, Any]:
    """The verdict that `validate` wrote."""
    verdict = json.loads((folder / "verdict.json").read_text(encoding="utf-8"))
    return {"name": name, **verdict}


def provenance(folders: Mapping[str, Path]) -> list[dict[str, Any]]:
    """What the runner wrote beside each input: step, parameters, hashes of inputs, metrics."""
    entries = []
    for name, folder in folders.items():
        path = folder / "manifest.json"
        if path.is_file():
            entries.append({"name": name.replace("_", " "), **json.loads(path.read_text(encoding="utf-8"))})
    return entries


def metrics_of(made: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Metrics of the steps by the input that they wrote, from what :func:`provenance` found."""
    return {entry["name"].replace(" ", "_"): entry["metrics"] for entry in made}


def frame(
    real: Cohort,
    synthetic: Cohort,
    verdicts: Sequence[Verdict],
    helped: Sequence[str],
    made: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What base.html.j2 asks for: summary, gates, cohort, generator and provenance.

    Args:
        real, synthetic: cohorts.
        verdicts: of the gates.
        helped: sentences on whether the synthetic cohort helped.
        made: what :func:`provenance` found.
    """
    generators = synthetic.table(("generator",))["generator"].unique().to_pylist()
    return {
        "cohort": cohort_section(real),
        "generator": ", ".join(sorted(str(name) for name in generators)),
        "gates": verdicts,
        **summary(real, synthetic, verdicts, helped),
        "provenance": made,
    }


def summary(real: Cohort, synthetic: Cohort, verdicts: Sequence[Verdict], helped: Sequence[str]) -> dict[str, Any]:
    """The first lines of the page: what was made, what passed, what is weakest."""
    failed = [verdict for verdict in verdicts if not verdict.passed]
    trained = real.meta["splits"].get("train", 0)
    made = f"{len(synthetic):,} synthetic eyes were drawn by a generator that learned from {trained:,} real images."
    if failed:
        headline = f"{len(verdicts) - len(failed)} of {len(verdicts)} gates passed: this generator may not be promoted."
    else:
        headline = f"All {len(verdicts)} gates passed."
    if set(real.meta["sources"]) <= {"phantom", "phantom_cubes"}:
        made += " Real means here: drawn by the digital phantom. No patient was photographed."
    sentences = [made]
    sentences += [f"Failed: {_inline(verdict.title)}: {verdict.shown}, asked for {verdict.rule}." for verdict in failed]
    margins = [(margin, verdict) for verdict in verdicts if verdict.passed and (margin := _margin(verdict)) is not None]
    if margins:
        weakest = min(margins, key=lambda pair: pair[0])[1]
        sentences.append(f"Narrowest pass: {_inline(weakest.title)}: {weakest.shown}, asked for {weakest.rule}.")
    return {"headline": headline, "summary": [*sentences, *helped]}


def _inline(text: str) -> str:
    """A title inside a sentence; an abbreviation keeps its capitals."""
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def _margin(verdict: Verdict) -> float | None:
    """Distance to the limit as a share of the limit."""
    if verdict.value is None or not verdict.limit:
        return None
    return abs(verdict.value - verdict.limit) / abs(verdict.limit)
