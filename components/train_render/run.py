"""Trains the renderer on the maps and photographs of the training split; of several processes the first writes."""

import json
import shutil
from pathlib import Path

from torch import nn

from components.step import Metrics, Paths
from components.train_render.step import TrainRenderParams
from retinalogos.cohort.shards import Cohort
from retinalogos.generators.lesion_map.adversarial import checkpoint_folder, train
from retinalogos.generators.lesion_map.examples import Examples, read_real
from retinalogos.generators.lesion_map.judging import fit_photo_grader
from retinalogos.generators.lesion_map.perceptual import COHORT, CohortMaps, PublishedMaps
from retinalogos.generators.lesion_map.pipeline import save_network
from retinalogos.generators.lesion_map.render_training import RenderObjective
from retinalogos.training import distributed


def run(params: TrainRenderParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    (examples,) = read_real(Cohort(inputs["cohort"]), params.network.size)
    features = _features(params, examples)
    objective = RenderObjective(
        examples, params.network, params.loss, features, params.training.batch_size, params.seed
    )
    settings, data = ["train_render", params.model_dump(mode="json")], [examples.candidates, examples.images]
    checkpoints = checkpoint_folder(Path(params.checkpoints), settings, data)
    train(objective, params.training, outputs["training"], checkpoints, "train_render")
    if distributed.rank() != distributed.FIRST:
        return {}
    objective.fit_styles()
    save_network(objective.generator, params.network, outputs["render"])
    shutil.rmtree(checkpoints, ignore_errors=True)
    last = json.loads((outputs["training"] / "log.jsonl").read_text().splitlines()[-1])
    return {
        "eyes": len(examples),
        "parameters": sum(weight.numel() for weight in objective.generator.parameters()),
        **{name: last[name] for name in ("generator_loss", "discriminator_loss", "feature_matching", "divergence")},
    }


def _features(params: TrainRenderParams, examples: Examples) -> nn.Module | None:
    """The perceptual network; None only where its weight is zero."""
    if not params.loss.perceptual:
        return None
    if params.loss.perceptual_network != COHORT:
        return PublishedMaps(params.loss.perceptual_network)
    return CohortMaps(fit_photo_grader(examples, params.features, params.seed))
