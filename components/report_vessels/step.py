"""One self-contained HTML page of vessel maps and what they are good for, and the verdict of the gates."""

from pathlib import Path

from components.report import page
from components.report.figures import read_results
from components.report.layout import fill
from components.report_vessels import tables
from components.step import Metrics, Paths, Port, Step
from retinalogos.cohort.shards import Cohort

SECTIONS = (
    ("summary", "Summary"),
    ("pictures", "Pictures"),
    ("judgement", "Judgement"),
    ("use", "What they are good for"),
    ("training", "Training"),
    ("cohort", "Cohort"),
    ("provenance", "Provenance"),
)
_GRID = {"grid.png": "Drawn: mask, photograph, enlarged. The first seeds; nobody chose them."}
# Logs of the stages that train, and what each draws.
_TRAINED = {
    "masks_log": "Masks",
    "paint_log": "Photographs for masks",
    "enlarge_log": "Enlargement",
    "segmenter_log": "Segmenter",
}
# Pixels of a sample picture on the page, which is as wide as the text.
_SAMPLE_WIDTH = 1120


class ReportVesselsParams(page.PageParams):
    """Parameters of ``report_vessels``; gates are on figures of `judgement`, `use` or `segmenter`."""


def run(params: ReportVesselsParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    real, synthetic = Cohort(inputs["cohort"]), Cohort(inputs["synthetic"])
    results = {name: read_results(inputs[name]) for name in ("judgement", "use", "segmenter")}
    verdicts = page.verdicts_of(params, results)
    filled = {
        "judgement": fill(tables.judgement(results["judgement"]), results["judgement"]),
        "use": fill(tables.use(results["use"]), results["use"]),
        "segmenter": fill(tables.segmenter(results["segmenter"]), results["segmenter"]),
    }
    context = {
        "size": _SAMPLE_WIDTH,
        **page.frame(real, synthetic, verdicts, tables.conclusion(results["use"]), page.provenance(inputs)),
        "pictures": page.captioned(inputs["grid"], _GRID),
        "anatomy": page.captioned(
            inputs["judgement"], {"anatomy.png": "Anatomy of the masks: means with 95 % intervals."}
        ),
        **{name: page.figures_section(results[name], inputs[name], filled[name]) for name in results},
        "training": [
            page.training(name, inputs[port], params.training_samples, _SAMPLE_WIDTH) for port, name in _TRAINED.items()
        ],
    }
    html = page.render(context, Path(__file__).with_name("vessels.html.j2"), SECTIONS)
    lower = "report.training_samples or draw_vessels.shown"
    return page.write(outputs["report"], html, results, verdicts, params.max_megabytes, lower)


STEP = Step(
    name="report_vessels",
    summary="one HTML page of vessel maps: grid, curves, tables with intervals, gates",
    params=ReportVesselsParams,
    run=run,
    inputs={
        "cohort": Port("real cohort with vessel maps", "Dataset"),
        "synthetic": Port("synthetic cohort of draw_vessels", "Dataset"),
        "grid": Port("grid.png of draw_vessels"),
        "judgement": Port("results.json and anatomy.png of judge_vessels"),
        "use": Port("results.json of use_vessels"),
        "segmenter": Port("results.json of segment_vessels"),
        "masks_log": Port("log of the model that draws masks"),
        "paint_log": Port("log of the model that paints photographs"),
        "enlarge_log": Port("log of the model that enlarges"),
        "segmenter_log": Port("log of the segmenter"),
    },
    outputs={"report": Port("folder with index.html, gates.json and figures.csv")},
)
