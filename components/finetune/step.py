"""What the step ``finetune`` takes and gives."""

from pydantic import Field

from components.launcher import LaunchedParams, launched
from components.step import Port, Step, later
from retinalogos.generators.text.configuration import AdapterConfig, FlowConfig, SamplingConfig


class FinetuneParams(LaunchedParams):
    """Parameters of ``finetune``."""

    flow: FlowConfig
    sampling: SamplingConfig
    lora: AdapterConfig
    prompts: list[str] = Field(description="drawn as training goes")


STEP = Step(
    name="finetune",
    summary="stage 3: go on at high resolution with curated pairs only",
    params=FinetuneParams,
    run=launched("finetune", later("components.finetune.run")),
    inputs={
        "latents": Port("latents and text features of the curated pairs", "Dataset"),
        "pretrained": Port("generator of stage 1", "Model"),
    },
    outputs={
        "generator": Port("diffusers-layout folder, averaged weights", "Model"),
        "log": Port("log.jsonl and sample pictures"),
    },
)
