"""Stage 3: the generator goes on at high resolution, on curated pairs only."""

from pathlib import Path

from components.finetune.step import FinetuneParams
from components.step import Metrics, Paths
from retinalogos.errors import UsageError
from retinalogos.generators.text import TextToFundusPipeline
from retinalogos.generators.text.latents import Latents
from retinalogos.generators.text.stages import new_prior, train_stage


def run(params: FinetuneParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    latents = Latents(inputs["latents"])
    pretrained = TextToFundusPipeline.from_pretrained(inputs["pretrained"])
    if pretrained.config.text_encoder_name != latents.meta["text_encoder"]:
        raise UsageError(
            f"the generator was trained with text encoder {pretrained.config.text_encoder_name}, the latents hold "
            f"features of {latents.meta['text_encoder']}: set encode_curated.text_encoder to that of encode"
        )
    pretrained.backbone.requires_grad_(True)
    return train_stage(
        pretrained.backbone,
        pretrained.conditioning,
        # Of these latents: at another resolution a patch holds other detail.
        pretrained.prior and new_prior(latents, pretrained.conditioning, pretrained.prior.config.components),
        latents,
        inputs["pretrained"] / "autoencoder",
        flow=params.flow,
        training=params,
        sampling=params.sampling,
        prompts=params.prompts,
        seed=params.seed,
        checkpoints=Path(params.checkpoints),
        generator=outputs["generator"],
        log=outputs["log"],
        what="finetune",
        lora=params.lora if params.lora.rank else None,
    )
