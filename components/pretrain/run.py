"""Stage 1: the generator learns from every captioned image, at low resolution."""

from pathlib import Path

from components.pretrain.step import PretrainParams
from components.step import Metrics, Paths
from retinalogos.generators.text.latents import Latents
from retinalogos.generators.text.stages import new_backbone, new_conditioning, new_prior, train_stage


def run(params: PretrainParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    latents = Latents(inputs["latents"])
    conditioning = new_conditioning(latents, params.standardise_text)
    return train_stage(
        new_backbone(params.backbone, latents, params.seed, prior=params.prior_components > 0),
        conditioning,
        new_prior(latents, conditioning, params.prior_components) if params.prior_components else None,
        latents,
        inputs["autoencoder"],
        flow=params.flow,
        training=params,
        sampling=params.sampling,
        prompts=params.prompts,
        seed=params.seed,
        checkpoints=Path(params.checkpoints),
        generator=outputs["generator"],
        log=outputs["log"],
        what="pretrain",
    )
