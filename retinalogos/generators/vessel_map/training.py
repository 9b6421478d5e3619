"""Trains one of the three models with the project's loop."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from retinalogos.cohort.shards import Cohort, encode_png
from retinalogos.contact_sheet import make_sheet
from retinalogos.generators.vessel_map.captions import CaptionFeatures, write
from retinalogos.generators.vessel_map.cascade import VesselMapCascade, Wish
from retinalogos.generators.vessel_map.configuration import DenoiserConfig, Part, TextConfig
from retinalogos.generators.vessel_map.examples import Examples, read_examples, tells
from retinalogos.generators.vessel_map.maps import to_colour
from retinalogos.generators.vessel_map.networks import Denoiser
from retinalogos.generators.vessel_map.objective import (
    Denoising,
    images_as_bytes,
    images_as_signal,
    new_denoiser,
    shrunk,
)
from retinalogos.training import distributed
from retinalogos.training.configuration import TrainingConfig
from retinalogos.training.loop import train

# Eyes on the sample pictures.
_SHOWN = 6


def train_part(
    part: Part,
    cohort: Cohort,
    *,
    size: int,
    factor: int,
    crop: int | None,
    most_noise: float,
    map_factor: int,
    text: TextConfig | None,
    config: DenoiserConfig,
    training: TrainingConfig,
    seed: int,
    checkpoints: Path,
    model: Path,
    log: Path,
) -> dict[str, float]:
    """Trains, writes the network's folder and its log, and returns the metrics.

    Checkpoints lie in ``checkpoints/<hash of all settings and of the data>``, as the text generator's do: a killed run
    goes on there, and they are removed when it has ended well.

    Args:
        part: which of the three.
        cohort: eyes with vessel maps that tell arteries from veins; ``enlarge`` takes eyes without too.
        size: pixels of what is drawn.
        factor: by which ``enlarge`` enlarges to that size.
        crop: of ``enlarge``, pixels; None for whole pictures.
        most_noise, map_factor: see :class:`~.objective.Denoising`.
        text: of ``paint``: captions as a further condition; None for none.
        config: of the network.
        training: of the loop.
        seed: of everything drawn at random.
        checkpoints, model, log: folders.
    """
    with tempfile.TemporaryDirectory() as scratch:
        wanted = (lambda _: True) if part == "enlarge" else tells
        eyes, validation = (
            read_examples(cohort, split, size, Path(scratch) / split, wanted, max(1, map_factor) * size // factor)
            for split in ("train", "validation")
        )
        objective = Denoising(part, eyes, validation, config, training.batch_size, seed, factor, crop, most_noise)
        objective.map_factor = map_factor
        captions = None if text is None else _captions(cohort, (eyes, validation), text, seed)
        objective.captions = None if captions is None else captions.features
        learned = None if captions is None else captions.features[0]
        network = new_denoiser(part, config, eyes, factor, size, seed, text, learned, most_noise, map_factor)
        if captions is not None:
            network.text_mean.data.copy_(captions.encoder.mean)
            network.text_std.data.copy_(captions.encoder.std)
        objective.scale = network.config.scale
        told = None if text is None else text.model_dump()
        settings = [part, size, factor, crop, most_noise, map_factor, told, config.model_dump(), training.model_dump()]
        about = json.dumps([*settings, seed, cohort.meta["content_sha256"]], sort_keys=True)
        folder = checkpoints / f"{part}-{hashlib.sha256(about.encode()).hexdigest()[:16]}"
        shown = validation if len(validation) else eyes

        def sample(trained: nn.Module, path: Path) -> None:
            assert isinstance(trained, Denoiser)
            sheet = _sheet(trained, shown, factor, None if captions is None else captions.of(shown))
            if distributed.rank() == distributed.FIRST:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encode_png(sheet))

        trained = train(network, objective, training, log, folder, f"vessel {part}", sample, objective.batch)
        assert isinstance(trained, Denoiser)
    if distributed.rank() != distributed.FIRST:
        return {}
    trained.save_pretrained(model)
    shutil.rmtree(folder, ignore_errors=True)
    records = [json.loads(line) for line in (log / "log.jsonl").read_text().splitlines()]
    return {
        "eyes": len(eyes),
        "steps": training.steps,
        "images_seen": training.steps * training.batch_size,
        "parameters": sum(weight.numel() for weight in trained.parameters()),
        "loss": records[-1]["loss"],
        "validation_loss": records[-1]["validation_loss"],
    }


@dataclass(frozen=True)
class _Captions:
    """Texts by image_id, their encoder, and the features of training and of validation eyes."""

    texts: dict[str, list[str]]
    encoder: CaptionFeatures
    features: tuple[Tensor, Tensor]

    def of(self, eyes: Examples) -> list[str]:
        """One of each eye: its last fine one."""
        return [self.texts[image_id][-1] for image_id in eyes.ids]


def _captions(cohort: Cohort, splits: Sequence[Examples], text: TextConfig, seed: int) -> _Captions:
    rows = [row for split in ("train", "validation") for row in cohort.table(split=split).to_pylist()]
    texts = dict(zip((row["image_id"] for row in rows), write(rows, text, seed), strict=True))
    of_splits = [[texts[image_id] for image_id in eyes.ids] for eyes in splits]
    encoder = CaptionFeatures.fit(text, of_splits[0])
    train, validation = (encoder.of_eyes(captions) for captions in of_splits)
    return _Captions(texts, encoder, (train, validation))


def _sheet(model: Denoiser, eyes: Examples, factor: int, captions: Sequence[str] | None) -> np.ndarray:
    """Uncurated: the first eyes' conditions and what is drawn for them."""
    part, chosen = model.config.part, np.arange(min(_SHOWN, len(eyes)))
    cascade = VesselMapCascade({part: model}, factor, 0.0, model.config.size, 0, {})
    if part == "masks":
        wishes = [Wish(int(i), int(eyes.sides[i]), eyes.marks[i]) for i in chosen]
        rows = [[to_colour(one) for one in eyes.maps[chosen]], [to_colour(one) for one in cascade.draw_maps(wishes)]]
    elif part == "paint":
        drawn = cascade.paint(eyes.maps[chosen], chosen.tolist(), captions and captions[: len(chosen)])
        rows = [[to_colour(one) for one in eyes.maps[chosen]], list(drawn), list(eyes.images[chosen])]
    else:
        small = images_as_bytes(shrunk(images_as_signal(eyes.images[chosen]), factor))
        enlarged = cascade.enlarge(small, chosen.tolist(), eyes.maps[chosen])
        rows = [list(small), list(enlarged), list(eyes.images[chosen])]
    return make_sheet([picture for row in rows for picture in row], columns=len(chosen))
