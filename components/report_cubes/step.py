"""One self-contained HTML page on hyperspectral cubes, and the verdict of the gates."""

from pathlib import Path

from pydantic import Field

from components.report import page
from components.report.figures import read_results
from components.report.layout import fill
from components.report_cubes import layout
from components.step import Metrics, Paths, Port, Step
from retinalogos.cohort.shards import Cohort

_TEMPLATE = Path(__file__).with_name("cubes.html.j2")


class ReportCubesParams(page.PageParams):
    """Parameters of ``report_cubes``; gates are on figures of `judgement`, `use`, `search` or `metrics`."""

    sample_width: int = Field(ge=48, description="pixels of a row of samples on the page, at most")


def run(params: ReportCubesParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    real, synthetic = Cohort(inputs["cohort"]), Cohort(inputs["synthetic"])
    found = {name: read_results(inputs[name]) for name in ("judgement", "use", "search")}
    made = page.provenance(inputs)
    results = {**found, "metrics": page.metrics_of(made)}
    verdicts = page.verdicts_of(params, results)
    shown = {file: layout.PICTURES[name] for name, file in found["judgement"]["pictures"].items()}
    html = page.render(
        {
            "size": 2 * params.sample_width,
            **page.frame(real, synthetic, verdicts, layout.conclusion(found["use"]), made),
            "pictures": page.captioned(inputs["judgement"], shown),
            "judgement": page.figures_section(found["judgement"], Path(), fill(layout.JUDGEMENT, found["judgement"])),
            "use": page.figures_section(found["use"], Path(), fill(layout.USE, found["use"])),
            "training": [
                page.training(name, inputs[port], params.training_samples, params.sample_width, charts)
                for name, port, charts in (
                    ("VQ-GAN", "vqgan_log", layout.AUTOENCODER_CHARTS),
                    ("VQ-VAE", "vqvae_log", layout.AUTOENCODER_CHARTS),
                    ("Diffusion", "diffusion_log", layout.DIFFUSION_CHARTS),
                )
            ],
            "search": page.figures_section(found["search"], inputs["search"], ()),
        },
        _TEMPLATE,
        layout.SECTIONS,
    )
    lower = "report.training_samples, judge_cubes.figures.cubes or judge_cubes.figures.bands"
    return page.write(outputs["report"], html, results, verdicts, params.max_megabytes, lower)


STEP = Step(
    name="report_cubes",
    summary="one HTML page on hyperspectral cubes: pictures, band sweep, spectra, tables with intervals, gates",
    params=ReportCubesParams,
    run=run,
    inputs={
        "cohort": Port("real cohort of cubes", "Dataset"),
        "synthetic": Port("synthetic cohort of cubes", "Dataset"),
        "judgement": Port("results.json and pictures of judge_cubes"),
        "use": Port("results.json of use_cubes"),
        "search": Port("results.json and plot of search_cubes"),
        "vqgan_log": Port("log of the VQ-GAN"),
        "vqvae_log": Port("log of the VQ-VAE"),
        "diffusion_log": Port("log of the diffusion"),
    },
    outputs={"report": Port("folder with index.html, gates.json and figures.csv")},
)
