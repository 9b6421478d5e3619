"""The judges of image-text agreement: each gives a score to every caption of a training image."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from components.purify.step import PurifyParams
from components.step import Paths
from retinalogos.captions.clip import load_clip_model
from retinalogos.captions.contrastive import out_of_fold, specificity
from retinalogos.captions.statements import probability_right
from retinalogos.classifiers.network import SmallBackbone, normalise
from retinalogos.cohort.shards import Cohort
from retinalogos.generators.text import TextToFundusPipeline
from retinalogos.generators.text.agreement import agreement
from retinalogos.generators.text.latents import Latents
from retinalogos.progress import track
from retinalogos.training.device import device

Rows = list[dict[str, Any]]
# Number of a caption → its score; higher is better.
Scores = dict[int, float]

MIRRORED = "-mirrored"
# Side of the pictures whose fine structure is measured: the least at which the lesions of early grades are seen.
_SIDE = 128
# Latents are averaged to so many places a side: enough to tell where disc and arcades lie.
_PLACES = 8
# Principal components of these that the image tower sees, and images that they are fitted to at most. Measured on 480
# phantom eyes: with 32 to 128 a linear reader tells the side of 98 to 99 %.
_COMPONENTS, _SAMPLE = 64, 2048
# Pictures whose moments are measured together, and captions whose features are read together; no result depends on it.
_AT_ONCE = 64


def by_generator(params: PurifyParams, rows: Rows, inputs: Paths) -> Scores:
    """How much the caption helps the generator of stage 1 to explain the image."""
    latents = Latents(inputs["latents"])
    pipeline = TextToFundusPipeline.from_pretrained(inputs["generator"]).to(device())
    images = {row["image_id"]: i for i, row in enumerate(latents.images) if row["split"] == "train"}
    texts = {row["text"]: i for i, row in enumerate(latents.texts)}
    pairs = [
        (number, images[row["image_id"]], texts[row["text"]])
        for number, row in enumerate(rows)
        if row["image_id"] in images and row["text"] in texts
    ]
    scores: Scores = {}
    for start in track(range(0, len(pairs), params.batch_size), "purify: agreement", unit="batch"):
        numbers, batch_images, batch_texts = zip(*pairs[start : start + params.batch_size], strict=True)
        values = agreement(pipeline, latents, batch_images, batch_texts, params.agreement_draws, params.seed)
        scores.update(zip(numbers, values.tolist(), strict=True))
    return scores


def by_contrastive_model(params: PurifyParams, rows: Rows, inputs: Paths) -> Scores:
    """How specific the pair is to a model trained on the pairs of other patients.

    Features are frozen: of pictures those of :class:`_Pairs`, of captions the mean of the text encoder's tokens.
    """
    pairs = _Pairs(rows, inputs)
    if not pairs.numbers:
        return {}
    pictures, texts = pairs.picture_features(), _caption_features(pairs.latents)
    together = torch.tensor(pairs.together)
    return pairs.scores(out_of_fold(pictures, texts, together, pairs.groups, params.contrastive, params.seed))


def by_statements(params: PurifyParams, rows: Rows, inputs: Paths) -> Scores:
    """How probable what the caption states is to readers of pictures trained on the pairs of other patients."""
    pairs = _Pairs(rows, inputs)
    if not pairs.numbers:
        return {}
    pictures, texts = pairs.picture_features().numpy(), [row["text"] for row in pairs.latents.texts]
    together = np.array(pairs.together)
    right = probability_right(pictures, together, texts, pairs.groups, params.statements, params.seed)
    return pairs.scores(torch.from_numpy(right))


class _Pairs:
    """Training pictures with their captions; where mirrored pictures were encoded they train too.

    Attributes:
        latents: images and captions as encoded.
        numbers: captions that are judged, as numbers of ``rows``.
        together: (picture, caption of ``latents``) of each of these, and after them of the mirrored ones.
        groups: patient of each picture.
    """

    def __init__(self, rows: Rows, inputs: Paths):
        self.latents, self._cohort = Latents(inputs["latents"]), Cohort(inputs["cohort"])
        table = self._cohort.table(("image_id", "patient_id"), "train").to_pydict()
        patients = dict(zip(table["image_id"], table["patient_id"], strict=True))
        self._images = [(number, row) for number, row in enumerate(self.latents.images) if row["split"] == "train"]
        captions = {row["text"]: number for number, row in enumerate(self.latents.texts)}
        place = {row["image_id"]: i for i, (_, row) in enumerate(self._images)}
        wanted = [
            (number, place[row["image_id"]], captions[row["text"]])
            for number, row in enumerate(rows)
            if row["image_id"] in place and row["text"] in captions
        ]
        mirrored = [
            (i, text)
            for i, (_, row) in enumerate(self._images)
            if row["image_id"].endswith(MIRRORED)
            for text in (*row["coarse"], *row["fine"])
        ]
        self.numbers = [number for number, _, _ in wanted]
        self.together = [(image, text) for _, image, text in wanted] + mirrored
        self.groups = [patients[row["image_id"].removesuffix(MIRRORED)] for _, row in self._images]

    def picture_features(self) -> Tensor:
        """Their latents, which know places, and the moments of their fine structure, which know lesions."""
        return _picture_features(self.latents, [number for number, _ in self._images], self._cohort)

    def scores(self, values: Tensor) -> Scores:
        """Values of ``together`` by number of the caption."""
        return dict(zip(self.numbers, values[: len(self.numbers)].tolist(), strict=True))


def _caption_features(latents: Latents) -> Tensor:
    """Mean of each caption's tokens, n×d float32; read in batches, so that requests to a bucket run side by side."""
    total = len(latents.texts)
    starts = track(range(0, total, _AT_ONCE), "purify: captions", unit="batch")
    batches = (latents.tokens(range(start, min(start + _AT_ONCE, total))) for start in starts)
    return torch.stack([tokens_nd.mean(0) for batch in batches for tokens_nd in batch])


def _picture_features(latents: Latents, numbers: list[int], cohort: Cohort) -> Tensor:
    """Latents and moments of images, n×d float32; a mirror image has the moments of its picture.

    Of the latents the leading principal components: with more the towers learn single pictures by heart.
    """
    backbone = SmallBackbone((8,)).to(device())
    names: list[str] = []

    def normalised() -> Iterator[Tensor]:
        total = cohort.meta["splits"].get("train", 0)
        for batch in _batched(track(cohort.images(_SIDE, "train"), "purify: pictures", total, "image"), _AT_ONCE):
            names.extend(name for name, _ in batch)
            yield normalise(np.stack([picture for _, picture in batch]), backbone, device())

    fine = backbone.standardise_moments(normalised()).cpu()
    row_of = {name: row for row, name in enumerate(names)}
    own = [row_of[latents.images[number]["image_id"].removesuffix(MIRRORED)] for number in numbers]
    sample = _coarse(latents, numbers[:: -(-len(numbers) // _SAMPLE)])
    mean = sample.mean(0)
    _, sizes, axes_dk = torch.linalg.svd(sample - mean, full_matrices=False)
    # Only directions that the sample has; each in units of its own spread.
    rank = min(_COMPONENTS, int((sizes > 1e-4 * sizes[0]).sum()))
    axes_dk = (axes_dk[:rank] / sizes[:rank, None]).T * len(sample) ** 0.5
    coarse = [
        (_coarse(latents, numbers[start : start + _AT_ONCE]) - mean) @ axes_dk
        for start in range(0, len(numbers), _AT_ONCE)
    ]
    return torch.cat([torch.cat(coarse), fine[own]], 1)


def _coarse(latents: Latents, numbers: Sequence[int]) -> Tensor:
    """Latents of images at no more than a few places a side, n×d float32."""
    found = latents.latents(numbers)
    return (F.adaptive_avg_pool2d(found, _PLACES) if found.shape[-1] > _PLACES else found).flatten(1)


def _batched(items: Iterable[tuple[str, np.ndarray]], size: int) -> Iterator[list[tuple[str, np.ndarray]]]:
    stream = iter(items)
    while batch := list(islice(stream, size)):
        yield batch


def by_clip_model(params: PurifyParams, rows: Rows, inputs: Paths) -> Scores:
    """How specific the pair is to the model of ``clip``."""
    model = load_clip_model(params.clip, device())
    cohort = Cohort(inputs["cohort"])
    place: dict[str, int] = {}
    pictures: list[Tensor] = []
    for batch in _batched(track(cohort.images(split="train"), "purify: pictures", unit="image"), params.batch_size):
        place.update({name: len(place) + i for i, (name, _) in enumerate(batch)})
        pictures.append(model.images([picture for _, picture in batch]))
    chosen = [(number, row) for number, row in enumerate(rows) if row["image_id"] in place]
    distinct = {text: number for number, text in enumerate(dict.fromkeys(row["text"] for _, row in chosen))}
    names = list(distinct)
    if not chosen:
        return {}
    texts = [
        model.texts(names[start : start + params.batch_size])
        for start in track(range(0, len(names), params.batch_size), "purify: captions", unit="batch")
    ]
    pairs = torch.tensor([(place[row["image_id"]], distinct[row["text"]]) for _, row in chosen])
    values = specificity(torch.cat(pictures), torch.cat(texts), model.scale, pairs, params.seed)
    return dict(zip((number for number, _ in chosen), values.tolist(), strict=True))


JUDGES: Mapping[str, Callable[[PurifyParams, Rows, Paths], Scores]] = {
    "generator": by_generator,
    "statements": by_statements,
    "contrastive": by_contrastive_model,
    "clip": by_clip_model,
}
