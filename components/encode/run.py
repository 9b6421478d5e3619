"""Latents of the images and features of their captions, stored once for all epochs."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from components.encode.step import EncodeParams
from components.step import Metrics, Paths
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import DataError
from retinalogos.generators.text.autoencoder import as_autoencoder, load_autoencoder_model, to_model_range
from retinalogos.generators.text.conditioning import TextEncoder, load_text_encoder
from retinalogos.generators.text.latents import Latents, LatentWriter, mirrored_words
from retinalogos.generators.text.representation import Representation
from retinalogos.progress import track
from retinalogos.training.device import device

# The test split is never encoded: nothing that trains or selects a generator may see it.
_SPLITS = ("train", "validation")
# Of the encoder that is trained here.
_SEED = 0


def run(params: EncodeParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    cohort = Cohort(inputs["cohort"])
    where = device()
    model = load_autoencoder_model(inputs["autoencoder"]).to(where)
    autoencoder = as_autoencoder(model)
    encoder = load_text_encoder(params.text_encoder, params.token_budget, params.text_layer, where)
    captions = _captions(inputs)
    meta = {
        "size": params.size,
        "channels": autoencoder.latent_channels,
        "latent_size": params.size // autoencoder.downscale,
        "text_encoder": params.text_encoder,
        "text_layer": params.text_layer,
        "text_dim": encoder.dim,
        "token_budget": params.token_budget,
        "cohort": cohort.meta["content_sha256"],
        "config_sha256": hashlib.sha256(params.model_dump_json().encode()).hexdigest(),
    }
    wanted = [row["image_id"] for row in cohort.table(("image_id", "split")).to_pylist() if row["split"] in _SPLITS]
    texts = sorted({text for image_id in wanted for _, text in captions.get(image_id, ())})
    if not texts:
        raise DataError(f"{inputs['captions']}: no caption for any training image of {inputs['cohort']}")
    mirrored = sorted({mirrored_words(text) for text in texts} - set(texts)) if params.mirror else []
    meta["empty_text"] = 0
    represent = None
    if params.representation.encoder is not None:
        represent = Representation(params.representation, _some_pictures(params, cohort), _SEED)
        meta["representation"] = represent.meta
    known = Latents(inputs["known"]) if "known" in inputs else None
    with LatentWriter(outputs["latents"], meta, params.shards_at) as writer:
        numbers = {
            text: writer.add_text(text, features)
            for text, features in _features(encoder, ["", *texts, *mirrored], params.batch_size, known)
        }
        for split in _SPLITS:
            _encode_split(params, cohort, split, autoencoder, represent, captions, numbers, writer, where)
    return {"images": len(writer._images), "texts": len(numbers), "latent_channels": autoencoder.latent_channels}


def _encode_split(
    params: EncodeParams,
    cohort: Cohort,
    split: str,
    autoencoder: Any,
    represent: Representation | None,
    captions: dict[str, list[tuple[str, str]]],
    numbers: dict[str, int],
    writer: LatentWriter,
    where: torch.device,
) -> None:
    sides = dict(zip(*cohort.table(("image_id", "eye"), split).to_pydict().values(), strict=True))
    total = cohort.meta["splits"].get(split, 0)
    images = track(cohort.images(params.size, split), f"encode: {split}", total=total, unit="image")
    for batch in _batched(((name, image) for name, image in images if name in captions), params.batch_size):
        stack = np.stack([image for _, image in batch])
        variants = [(stack, lambda text: text, "")]
        if params.mirror and split == "train":
            variants.append((stack[:, :, ::-1].copy(), mirrored_words, "-mirrored"))
        for pixels, words, suffix in variants:
            with torch.inference_mode():
                latents = autoencoder.encode(to_model_range(pixels).to(where)).cpu()
            features = represent(pixels) if represent else [None] * len(batch)
            for (name, _), latent, feature in zip(batch, latents, features, strict=True):
                by_kind: dict[str, list[int]] = {"coarse": [], "fine": []}
                for granularity, text in captions[name]:
                    by_kind[granularity].append(numbers[words(text)])
                eye = sides[name] and words(sides[name])
                writer.add_image(name + suffix, split, eye, latent.clone(), by_kind["coarse"], by_kind["fine"], feature)


def _some_pictures(params: EncodeParams, cohort: Cohort) -> np.ndarray:
    """Of the training split, evenly spaced, every other one mirrored where training eyes are: uint8 n×size×size×3."""
    stride = math.ceil(cohort.meta["splits"].get("train", 0) / params.representation.pictures)
    images = islice(cohort.images(params.size, "train"), None, None, stride)
    return np.stack([image[:, :: 1 - 2 * (params.mirror and i % 2)] for i, (_, image) in enumerate(images)])


def _captions(inputs: Paths) -> dict[str, list[tuple[str, str]]]:
    table = pq.read_table(inputs["captions"] / "captions.parquet", columns=["image_id", "granularity", "text"])
    captions: dict[str, list[tuple[str, str]]] = {}
    for row in table.to_pylist():
        captions.setdefault(row["image_id"], []).append((row["granularity"], row["text"]))
    return captions


def _features(
    encoder: TextEncoder, texts: Sequence[str], batch_size: int, known: Latents | None
) -> Iterator[tuple[str, torch.Tensor]]:
    """Features of the empty text first, then of all others; those that ``known`` holds are taken from there."""
    stored: dict[str, int] = {}
    if known and (known.meta["text_encoder"], known.meta["text_layer"]) == (encoder.name, encoder.layer):
        stored = {row["text"]: number for number, row in enumerate(known.texts)}
    new = [text for text in texts if text not in stored]
    shared = [text for text in texts if text in stored]
    for start in range(0, len(shared), batch_size):
        batch = shared[start : start + batch_size]
        assert known is not None
        yield from zip(batch, known.tokens([stored[text] for text in batch]), strict=True)
    # By length, so that a batch holds little padding; the empty text stays first.
    ordered = sorted(new, key=lambda text: (len(text), text))
    for start in track(range(0, len(ordered), batch_size), "encode: captions", unit="batch"):
        batch = ordered[start : start + batch_size]
        features, mask = encoder.encode(batch)
        for text, row, length in zip(batch, features.cpu(), mask.sum(1).tolist(), strict=True):
            yield text, row[:length].clone()


def _batched(items: Iterator[tuple[str, np.ndarray]], size: int) -> Iterator[list[tuple[str, np.ndarray]]]:
    batch: list[tuple[str, np.ndarray]] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
