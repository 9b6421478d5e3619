"""Fits the autoencoder to the training split, or fetches a pre-trained one, and measures what it keeps."""

import math
from collections.abc import Iterator

import numpy as np
import torch

from components.autoencode.step import AutoencodeParams
from components.step import Metrics, Paths
from retinalogos.cohort.shards import Cohort, decode_image, decode_map
from retinalogos.generators.text.autoencoder import (
    Autoencoder,
    PatchAutoencoder,
    as_autoencoder,
    load_autoencoder_model,
    to_model_range,
    to_uint8,
)
from retinalogos.metrics.reconstruction import contrast, contrast_kept, psnr
from retinalogos.progress import track


def run(params: AutoencodeParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    cohort = Cohort(inputs["cohort"])
    metrics: dict[str, float] = {}
    if params.engine == "patch":
        model, metrics["variance_kept"] = PatchAutoencoder.fit(
            lambda: _batches(cohort), params.patch, params.components, params.whitening
        )
    else:
        model = load_autoencoder_model(params.name)
    model.save_pretrained(outputs["autoencoder"])
    return metrics | _judge(as_autoencoder(model), cohort, params.judged)


def _batches(cohort: Cohort, size: int = 32) -> Iterator[torch.Tensor]:
    batch: list[np.ndarray] = []
    total = cohort.meta["splits"].get("train", 0)
    for _, image in track(cohort.images(split="train"), "autoencode: fit", total=total, unit="image"):
        batch.append(image)
        if len(batch) == size:
            yield to_model_range(np.stack(batch))
            batch = []
    if batch:
        yield to_model_range(np.stack(batch))


@torch.inference_mode()
def _judge(model: Autoencoder, cohort: Cohort, most: int) -> dict[str, float]:
    """Whole picture, vessels and lesions of test images; what cannot be measured is left out."""
    ratios: list[float] = []
    contrasts: dict[str, list[tuple[float, float]]] = {"vessels": [], "lesions": []}
    for row, _ in zip(cohort.rows(("image", *contrasts), split="test"), range(most), strict=False):
        original = decode_image(row["image"]["bytes"])
        rebuilt = to_uint8(model.decode(model.encode(to_model_range(original[None]))))[0]
        ratios.append(psnr(original, rebuilt))
        for name, pairs in contrasts.items():
            if row[name] is not None:
                mask = decode_map(row[name]["bytes"]) > 0
                pairs.append((contrast(original, mask), contrast(rebuilt, mask)))
    scores = {"psnr": float(np.mean(ratios))} if ratios else {}
    scores |= {f"{name[:-1]}_contrast_kept": contrast_kept(pairs) for name, pairs in contrasts.items()}
    return {name: value for name, value in scores.items() if math.isfinite(value)}
