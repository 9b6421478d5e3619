"""Trains the layout network on the maps of the training split; of several processes the first writes."""

import json
import shutil
from pathlib import Path

from components.step import Metrics, Paths
from components.train_layout.step import TrainLayoutParams
from retinalogos.cohort.shards import Cohort
from retinalogos.generators.lesion_map.adversarial import checkpoint_folder, train
from retinalogos.generators.lesion_map.examples import read_real
from retinalogos.generators.lesion_map.layout_training import LayoutObjective
from retinalogos.generators.lesion_map.pipeline import save_network, save_no_layout
from retinalogos.training import distributed


def run(params: TrainLayoutParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module; where too few eyes have a grade, ``layout`` says so and holds no network."""
    (examples,) = read_real(Cohort(inputs["cohort"]), params.network.size)
    if not examples.by_grade:
        print("train_layout: too few training eyes have a grade; maps of training eyes will be rendered", flush=True)
        save_no_layout(outputs["layout"])
        outputs["training"].mkdir(parents=True, exist_ok=True)
        return {"eyes": 0, "left_out": len(examples)}
    objective = LayoutObjective(examples, params.network, params.loss, params.training.batch_size, params.seed)
    settings, data = ["train_layout", params.model_dump(mode="json")], [examples.candidates, examples.grades]
    checkpoints = checkpoint_folder(Path(params.checkpoints), settings, data)
    train(objective, params.training, outputs["training"], checkpoints, "train_layout")
    if distributed.rank() != distributed.FIRST:
        return {}
    objective.finish()
    save_network(objective.generator, params.network, outputs["layout"])
    shutil.rmtree(checkpoints, ignore_errors=True)
    last = json.loads((outputs["training"] / "log.jsonl").read_text().splitlines()[-1])
    return {
        "eyes": len(examples) - objective.left_out,
        "left_out": objective.left_out,
        "parameters": sum(weight.numel() for weight in objective.generator.parameters()),
        **{name: last[name] for name in ("generator_loss", "discriminator_loss", "augmentation")},
    }
