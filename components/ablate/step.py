"""What the step ``ablate`` takes and gives."""

from pydantic import Field

from components.launcher import LauncherConfig
from components.step import Params, Port, Step, later


class AblateParams(Params):
    """Parameters of ``ablate``; those of the steps that it repeats are read from what these wrote."""

    enabled: bool = Field(description="whether stage 3 is trained a second time, on all captions")
    work: str = Field(
        exclude=True, description="folder for what lies between, and for checkpoints, so that a killed step goes on"
    )
    launcher: LauncherConfig = Field(exclude=True, description="who starts the processes that train")


STEP = Step(
    name="ablate",
    summary="stage 3 again without purification: trained, drawn from and assessed as the one with it",
    params=AblateParams,
    run=later("components.ablate.run"),
    inputs={
        "cohort": Port("real cohort", "Dataset"),
        "captions": Port("captions as written, none dropped", "Dataset"),
        "autoencoder": Port("autoencoder", "Model"),
        "known": Port("latents of stage 1: features of captions are taken from there", "Dataset"),
        "pretrained": Port("generator of stage 1", "Model"),
        "latents": Port("latents of the curated pairs: how they were encoded", "Dataset"),
        "log": Port("log of stage 3: how it was trained"),
        "synthetic": Port("synthetic cohort: how it was drawn", "Dataset"),
        "assessment": Port("assessment of that cohort: how, and its figures"),
    },
    outputs={"ablation": Port("results.json: the figures of assess without purification, or that it was not run")},
)
