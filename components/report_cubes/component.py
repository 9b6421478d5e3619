"""Kubeflow component of ``report_cubes``; the work is in step.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("cpu"), install_kfp_package=False)
def report_cubes(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    synthetic: dsl.Input[dsl.Dataset],
    judgement: dsl.Input[dsl.Artifact],
    use: dsl.Input[dsl.Artifact],
    search: dsl.Input[dsl.Artifact],
    vqgan_log: dsl.Input[dsl.Artifact],
    vqvae_log: dsl.Input[dsl.Artifact],
    diffusion_log: dsl.Input[dsl.Artifact],
    report: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    shown: dsl.Output[dsl.HTML],
) -> None:
    """One HTML page on hyperspectral cubes: pictures, band sweep, spectra, tables with intervals, gates."""
    from components.runner import run_component
    from components.shown import show_file

    inputs = {
        "cohort": cohort,
        "synthetic": synthetic,
        "judgement": judgement,
        "use": use,
        "search": search,
        "vqgan_log": vqgan_log,
        "vqvae_log": vqvae_log,
        "diffusion_log": diffusion_log,
    }
    outputs = {"report": report, "metrics": metrics}
    run_component("report_cubes", stage, params, inputs, outputs)
    show_file(report, "index.html", shown)
