"""Training stages 1 and 3: the same work on other latents, from a new or from a given backbone."""

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.modeling_utils import ModelMixin
from PIL import Image
from torch import Tensor, nn

from retinalogos.errors import UsageError
from retinalogos.generators.text.adapters import adapt, save_and_merge
from retinalogos.generators.text.autoencoder import load_autoencoder_model
from retinalogos.generators.text.backbones import build_backbone, load_backbone
from retinalogos.generators.text.conditioning import TextConditioning
from retinalogos.generators.text.configuration import AdapterConfig, BackboneConfig, FlowConfig, SamplingConfig
from retinalogos.generators.text.latents import Latents
from retinalogos.generators.text.objective import FlowMatching
from retinalogos.generators.text.pipeline import TextToFundusPipeline
from retinalogos.generators.text.prior import MOST_IMAGES, LatentPrior
from retinalogos.generators.text.representation import attach, detach
from retinalogos.training import distributed
from retinalogos.training.configuration import TrainingConfig
from retinalogos.training.device import device
from retinalogos.training.loop import train

# The scale of text features is estimated on at most this many captions.
_CONDITIONING_CAPTIONS = 4096
# Captions whose features are in memory at once; from a bucket they come side by side.
_CAPTIONS_READ = 256


def new_backbone(config: BackboneConfig, latents: Latents, seed: int, prior: bool) -> ModelMixin:
    """The backbone at the start of stage 1; ``prior``: it will be given a :class:`LatentPrior`'s estimate."""
    if config.pretrained:
        return load_backbone(config.pretrained, _subfolder(config.pretrained))
    torch.manual_seed(seed)
    meta = latents.meta
    arguments = {"next_dit": config.next_dit, "unet": config.unet, "lumina2": config.lumina2}[config.name]
    return build_backbone(config.name, meta["channels"], meta["text_dim"], meta["latent_size"], arguments, prior)


def _subfolder(name: str) -> str | None:
    """Published Lumina checkpoints keep the network in ``transformer``; our own folders in ``backbone``."""
    folder = Path(name)
    if folder.is_dir():
        return next((part for part in ("transformer", "backbone") if (folder / part).is_dir()), None)
    return "transformer"


def new_conditioning(latents: Latents, standardise: bool) -> TextConditioning:
    """The scale of text features: fitted, or the identity for weights that were trained on raw features."""
    if not standardise:
        return TextConditioning(latents.meta["text_dim"])
    texts = [i for i in range(len(latents.texts)) if i != latents.meta["empty_text"]]
    stride = max(1, len(texts) // _CONDITIONING_CAPTIONS)
    return TextConditioning.fit(latents.tokens(texts[::stride]))


def new_prior(latents: Latents, conditioning: TextConditioning, components: int) -> LatentPrior:
    """The prior of the training split's latents, given the first coarse and the first fine caption of each."""
    rows = latents.rows("train")
    rows = rows[:: math.ceil(len(rows) / MOST_IMAGES)]

    def pooled(texts: list[int]) -> Tensor:
        found = []
        # Some at a time: the tokens of all captions would be gigabytes.
        for start in range(0, len(texts), _CAPTIONS_READ):
            for tokens in latents.tokens(texts[start : start + _CAPTIONS_READ]):
                found.append(conditioning(tokens[None], torch.ones(1, len(tokens), dtype=torch.long))[1])
        return torch.cat(found)

    captions = [pooled([latents.captions(row, kind)[0] for row in rows]) for kind in ("coarse", "fine")]
    return LatentPrior.fit(
        latents.latents(rows),
        torch.stack(captions),
        pooled([int(latents.meta["empty_text"])])[0],
        components,
        [latents.images[row]["eye"] for row in rows],
    )


def checkpoint_key(backbone: ModelMixin, prior: LatentPrior | None, settings: list[Any]) -> str:
    """Name of a stage's checkpoints: the same for the same networks and settings, in any process."""
    # diffusers' own notes among the arguments come in an order that differs from process to process.
    networks = [
        {name: value for name, value in model.config.items() if not name.startswith("_")}
        for model in (backbone, prior)
        if model is not None
    ]
    return hashlib.sha256(json.dumps([networks, settings], sort_keys=True).encode()).hexdigest()[:16]


def train_stage(
    backbone: ModelMixin,
    conditioning: TextConditioning,
    prior: LatentPrior | None,
    latents: Latents,
    autoencoder: Path,
    *,
    flow: FlowConfig,
    training: TrainingConfig,
    sampling: SamplingConfig,
    prompts: list[str],
    seed: int,
    checkpoints: Path,
    generator: Path,
    log: Path,
    what: str,
    lora: AdapterConfig | None = None,
) -> dict[str, float]:
    """Trains, writes the generator's folder and its log, and returns the metrics.

    Checkpoints lie in ``checkpoints/<hash of all settings and of the data>``: a killed stage that is started again
    with the same settings goes on; with others it starts anew. They are removed when the stage has ended well.
    Of several processes the first writes and returns metrics.

    With ``lora`` only adapters of the backbone are trained. The generator holds them merged into the backbone, and by
    themselves in ``adapter/``.

    Raises:
        UsageError: adapters of a model that is to be sharded; an alignment to features that are not there.
    """
    adapters = lora and lora.model_dump()
    settings = [flow.model_dump(), training.model_dump(), seed, latents.meta, what, adapters]
    key = checkpoint_key(backbone, prior, settings)
    if lora is not None and training.sharded:
        raise UsageError(f"{what}: adapters fit on one device: set {what}.sharded=false, or {what}.lora.rank=0")
    adapted = adapt(backbone, lora, seed) if lora is not None else None
    if flow.alignment_weight:
        attach(backbone, latents.meta, seed)
    objective = FlowMatching(latents, conditioning, prior, training.batch_size, seed, flow)
    pipeline = TextToFundusPipeline(
        backbone,
        load_autoencoder_model(autoencoder),
        conditioning,
        prior,
        text_encoder_name=latents.meta["text_encoder"],
        text_layer=latents.meta["text_layer"],
        token_budget=latents.meta["token_budget"],
        size=latents.meta["size"],
        **sampling.model_dump(),
    ).to(device())

    def sample(_: nn.Module, path: Path) -> None:
        drawn = pipeline(prompts, seeds=list(range(len(prompts))))
        if distributed.rank() != distributed.FIRST:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(list(drawn), axis=1)).save(path)

    trained = train(backbone, objective, training, log, checkpoints / key, what, sample, objective.batch)
    if distributed.rank() != distributed.FIRST:
        return {}
    detach(trained)
    if adapted is not None:
        save_and_merge(adapted, generator / "adapter")
    pipeline.register_modules(backbone=trained)
    pipeline.to("cpu").save_pretrained(generator)
    (log / "prompts.json").write_text(json.dumps(prompts, indent=2) + "\n")
    shutil.rmtree(checkpoints / key, ignore_errors=True)
    records = [json.loads(line) for line in (log / "log.jsonl").read_text().splitlines()]
    return {
        "steps": training.steps,
        "images_seen": training.steps * training.batch_size,
        "parameters": sum(weight.numel() for weight in trained.parameters()),
        "loss": records[-1]["loss"],
        "validation_loss": records[-1]["validation_loss"],
    }
