"""One self-contained HTML page of lesion maps and what they are good for, and the verdict of the gates."""

from pathlib import Path

from components.report import page
from components.report.figures import read_results
from components.report.layout import fill
from components.report_lesion_maps import tables
from components.step import Metrics, Paths, Port, Step
from retinalogos.cohort.shards import Cohort
from retinalogos.generators.lesion_map import maps

SECTIONS = (
    ("summary", "Summary"),
    ("pictures", "Pictures"),
    ("judgement", "Judgement"),
    ("trial", "What they are good for"),
    ("training", "Training"),
    ("cohort", "Cohort"),
    ("provenance", "Provenance"),
)
# Pictures of `judge_lesion_maps` in the order of the page, and what each shows.
_PICTURES = {
    "grid.png": "Maps, and below each its photograph. The first ones; nobody chose them.",
    "beside_real.png": "Real maps and photographs on the left, drawn ones on the right; a row a grade.",
    "styles.png": "Maps in the style of real photographs of the test split.",
    "edits.png": "Maps from which the largest lesion is erased, rendered again in the same style.",
    "closest_maps.png": "The drawn maps that come closest to a training map, above it.",
    "closest_photographs.png": "The drawn photographs that come closest to a training photograph, above it.",
}
_CHARTS = {
    "losses": {"generator": "generator_loss", "discriminator": "discriminator_loss"},
    "gradient norms": {"generator": "generator_gradient_norm", "discriminator": "discriminator_gradient_norm"},
}
# Pixels of a sample picture on the page, which is as wide as the text.
_SAMPLE_WIDTH = 1120


class ReportLesionMapsParams(page.PageParams):
    """Parameters of ``report_lesion_maps``; gates are on figures of `assessment` and `classification`."""


def run(params: ReportLesionMapsParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    real, synthetic = Cohort(inputs["cohort"]), Cohort(inputs["synthetic"])
    judgement, trial = read_results(inputs["judgement"]), read_results(inputs["trial"])
    # The names of the main line, by which `register` and its tags go.
    results = {"assessment": judgement, "classification": trial}
    verdicts = page.verdicts_of(params, results)
    context = {
        "size": _SAMPLE_WIDTH,
        **page.frame(real, synthetic, verdicts, [], page.provenance(inputs)),
        "pictures": page.captioned(inputs["judgement"], _PICTURES),
        "judgement": page.figures_section(judgement, inputs["judgement"], fill(tables.JUDGEMENT, judgement)),
        "trial": page.figures_section(trial, inputs["trial"], fill(tables.TRIAL, trial)),
        "classes": [
            (code, name, f"#{bytes(colour.tolist()).hex()}")
            for code, name, colour in zip(maps.CLASSES, maps.NAMES, maps.COLOURS, strict=True)
        ],
        "few": [grade for grade in range(maps.GRADES) if str(grade) not in judgement.get("lesions", {})],
        "left_out": sorted({*judgement.get("left_out", ()), *trial.get("left_out", ())}),
        "training": [
            page.training(name, inputs[port], params.training_samples, _SAMPLE_WIDTH, _CHARTS)
            for name, port in (("Layout network", "layout_training"), ("Render network", "render_training"))
            if (inputs[port] / "log.jsonl").is_file()
        ],
    }
    html = page.render(context, Path(__file__).with_name("page.html.j2"), SECTIONS)
    return page.write(
        outputs["report"], html, results, verdicts, params.max_megabytes,
        "report.training_samples or judge_lesion_maps.columns",
    )  # fmt: skip


STEP = Step(
    name="report_lesion_maps",
    summary="one HTML page of lesion maps: pictures, curves, tables with intervals, gates",
    params=ReportLesionMapsParams,
    run=run,
    inputs={
        "cohort": Port("real cohort", "Dataset"),
        "synthetic": Port("synthetic cohort of draw_lesion_maps", "Dataset"),
        "judgement": Port("results.json and pictures of judge_lesion_maps"),
        "trial": Port("results.json of try_lesion_maps"),
        "layout_training": Port("log of train_layout"),
        "render_training": Port("log of train_render"),
    },
    outputs={"report": Port("folder with index.html, gates.json and figures.csv")},
)
