"""One self-contained HTML page that a clinician and an engineer can both read, and the verdict of the gates."""

import json

from pydantic import Field

from components.report import layout, page
from components.report.figures import read_results
from components.step import Metrics, Paths, Port, Step
from retinalogos.cohort.shards import Cohort


class ReportParams(page.PageParams):
    """Parameters of ``report``; gates are on figures of `assessment`, `classification` or `metrics`."""

    image_size: int = Field(ge=48, le=512, description="pixels of a picture on the page")
    images_per_group: int = Field(ge=1, description="real, and synthetic, pictures of each class")
    prompts: int = Field(ge=0, description="prompts with a row of pictures each")
    captions: int = Field(ge=0, description="images with their captions")


def run(params: ReportParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    # Imported where it is used: it takes a second.
    from components.report import curves

    real, synthetic = Cohort(inputs["cohort"]), Cohort(inputs["synthetic"])
    assessment, classification = read_results(inputs["assessment"]), read_results(inputs["classification"])
    made = page.provenance(inputs)
    results = {"assessment": assessment, "classification": classification, "metrics": page.metrics_of(made)}
    verdicts = page.verdicts_of(params, results)
    html = page.render(
        {
            "size": params.image_size,
            **page.frame(real, synthetic, verdicts, layout.conclusion(classification), made),
            "helped": [*layout.help_sentences(classification), *layout.left_out(classification)],
            **page.pictures(real, synthetic, params.images_per_group, params.prompts, params.image_size),
            "assessment": page.figures_section(
                assessment, inputs["assessment"], layout.assessment(assessment), curves.assessment(assessment)
            ),
            "closest": page.closest_pairs(assessment["memorisation"], real, synthetic, params.image_size),
            "classification": page.figures_section(
                classification,
                inputs["classification"],
                layout.classification(classification),
                curves.classification(classification, inputs["classification"] / "predictions.parquet"),
            ),
            "training": [
                page.training(name, inputs[port], params.training_samples, 8 * params.image_size)
                for name, port in (("Pre-training", "pretrain_log"), ("Fine-tuning", "finetune_log"))
            ],
            "captions": page.captions(
                real,
                inputs["captions"],
                inputs["curated"],
                json.loads(inputs["purification"].read_text(encoding="utf-8")),
                params.captions,
                params.image_size,
            ),
            "ablation": page.ablation(read_results(inputs["ablation"]), assessment),
            "validation": [
                page.validation("Cohort", inputs["validation"]),
                page.validation("Captions", inputs["validation_captions"]),
            ],
        }
    )
    lower = "report.images_per_group, report.prompts or report.training_samples"
    return page.write(outputs["report"], html, results, verdicts, params.max_megabytes, lower)


STEP = Step(
    name="report",
    summary="one HTML page: pictures, curves, tables with intervals, gates",
    params=ReportParams,
    run=run,
    inputs={
        "cohort": Port("real cohort", "Dataset"),
        "captions": Port("captions as written", "Dataset"),
        "curated": Port("captions that were kept, and dropped.csv", "Dataset"),
        "synthetic": Port("synthetic cohort", "Dataset"),
        "assessment": Port("results.json of assess"),
        "classification": Port("results.json of classify"),
        "validation": Port("verdict on the cohort"),
        "validation_captions": Port("verdict on the captions"),
        "pretrain_log": Port("log of stage 1"),
        "finetune_log": Port("log of stage 3"),
        "purification": Port("metrics of purify, JSON", "Metrics"),
        "ablation": Port("results.json of ablate"),
    },
    outputs={"report": Port("folder with index.html, gates.json and figures.csv")},
)
