"""Planted copies: how many altered training images among honest ones are flagged, and how many honest ones with them.

python -m benchmarks.copies data/cohort                # real, unseen images of the validation split are the honest ones
python -m benchmarks.copies data/cohort --fresh 400    # phantom: and so many newly drawn eyes

Honest images are what a perfect generator would draw: real eyes that are not in training. To them copies of training
images are added, one in a hundred, each altered in one way or in all ways at once, and `assess`'s own search for copies
is asked (:func:`retinalogos.metrics.assessment.copies`, with the features of ``random_conv``). Several mixtures with
other copies give a share of copies found that is known better than to one in seven.
"""

import argparse
import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import yaml

from components import ROOT
from retinalogos.cohort.shards import Cohort, CohortWriter, encode_png
from retinalogos.metrics import assessment
from retinalogos.metrics.features import RANDOM_CONV, feature_space
from retinalogos.metrics.observation import Observed, observe
from retinalogos.phantom import draw, sample_records

SHARE = 0.01  # of the mixture are copies

Alteration = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def shift(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """By up to a sixteenth of the side each way."""
    right, down = rng.integers(-(image.shape[0] // 16), image.shape[0] // 16 + 1, 2).astype(float)
    return cv2.warpAffine(image, np.array([[1, 0, right], [0, 1, down]]), image.shape[1::-1])


def brightness(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Contrast by up to 30 %, level by up to 20 of 255."""
    return (image * rng.uniform(0.7, 1.3) + rng.uniform(-20, 20)).clip(0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Written at a quality of 30 to 60 and read again."""
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 61))])[1], 1)


def crop(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A square of 85 to 97 % of the side, anywhere, brought to the old size."""
    size = image.shape[0]
    side = round(size * rng.uniform(0.85, 0.97))
    top, left = rng.integers(0, size - side + 1, 2)
    return cv2.resize(image[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_AREA)


def flip(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirrored left to right."""
    return np.ascontiguousarray(image[:, ::-1])


def everything(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cropped, shifted, mirrored, made brighter or darker, and written as JPEG."""
    for alter in (crop, shift, flip, brightness, jpeg):
        image = alter(image, rng)
    return image


ALTERATIONS: tuple[Alteration, ...] = (shift, brightness, jpeg, crop, flip, everything)


def written(folder: Path, images: list[np.ndarray]) -> Cohort:
    """A cohort of these images, all of them synthetic by name."""
    with CohortWriter(folder, "planted") as writer:
        for number, image in enumerate(images):
            name = f"{folder.name}-{number:05d}"
            data = encode_png(image)
            row = {"image_id": name, "patient_id": name, "split": "train", "source": "synthetic"}
            row |= {"image": {"bytes": data, "path": f"{name}.png"}, "sha256": hashlib.sha256(data).hexdigest()}
            writer.add(row | {"width": image.shape[1], "height": image.shape[0]})
    return Cohort(folder)


def joined(a: Observed, b: Observed) -> Observed:
    """Two sets as one, for the search for copies; labels other than the names are those of the first."""
    asked = replace(
        a.asked,
        image_id=a.asked.image_id + b.asked.image_id,
        patient_id=a.asked.patient_id + b.asked.patient_id,
    )
    return replace(
        a,
        asked=asked,
        spaces={name: np.concatenate([values, b.spaces[name]]) for name, values in a.spaces.items()},
        descriptors=np.concatenate([a.descriptors, b.descriptors]),
        structures=np.concatenate([a.structures, b.structures]),
    )


def main(arguments: list[str] | None = None) -> None:
    """Prints what was found of each alteration, and the false alarms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path, help="folder of a real cohort")
    parser.add_argument("--fresh", type=int, default=0, help="newly drawn phantoms among the honest images")
    parser.add_argument("--mixtures", type=int, default=24, help="mixtures with other copies (default 24)")
    options = parser.parse_args(arguments)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())["assess"]
    # No intervals: every resample would cost as much as the search.
    params |= {"resamples": 0, "distance_resamples": 0}
    settings = assessment.Settings(**{name: params[name] for name in assessment.Settings.__annotations__})
    real, size = Cohort(options.cohort), params["size"]
    space = feature_space(RANDOM_CONV, params["seed"])
    rng = np.random.default_rng(params["seed"])

    def look(cohort: Cohort, split: str | None) -> Observed:
        return observe(cohort, split, size, [space], params["descriptor_side"], None, None)

    train, test, honest = (look(real, split) for split in ("train", "test", "validation"))
    with tempfile.TemporaryDirectory() as home:
        if options.fresh:
            # Another seed than that of any cohort of the presets.
            eyes = [eye.image for eye in draw(sample_records(options.fresh, seed=60_221), size)]
            honest = joined(honest, look(written(Path(home) / "fresh", eyes), None))
        planted = max(1, round(SHARE * len(honest)))
        originals = rng.choice(len(train), options.mixtures * planted, replace=False)
        wanted = {int(position): number for number, position in enumerate(originals)}
        ways = [ALTERATIONS[number % len(ALTERATIONS)] for number in range(len(originals))]
        altered: dict[int, np.ndarray] = {}
        for position, (_, image) in enumerate(real.images(size, "train")):
            if position in wanted:
                altered[wanted[position]] = ways[wanted[position]](image, rng)
        copies = look(written(Path(home) / "copies", [altered[number] for number in range(len(ways))]), None)
    # What is flagged depends on an image, the training images and the test images, not on the rest of its mixture.
    found = assessment.copies(train, test, joined(honest, copies), settings)
    flagged = {pair.image_id: pair for pair in found.flagged}
    hits = np.array([name in flagged for name in copies.asked.image_id])
    right = [
        name in flagged and flagged[name].train_id == train.asked.image_id[position]
        for name, position in zip(copies.asked.image_id, originals, strict=True)
    ]
    alarms = np.array([name in flagged for name in honest.asked.image_id])
    print(f"{len(train)} training and {len(test)} test images, {len(honest)} honest ones")
    print(f"{options.mixtures} mixtures of {len(honest)} honest images and {planted} copies")
    print("| alteration | copies | found |")
    print("|---|---|---|")
    for way in ALTERATIONS:
        own = np.array([other is way for other in ways])
        print(f"| {way.__name__} | {own.sum()} | {hits[own].sum()} |")
    print(f"| all | {len(hits)} | {hits.sum()} ({hits.mean():.1%}) |")
    print(f"original named rightly: {np.mean(right):.1%} of the copies")
    print(f"false alarms: {alarms.sum()} of {len(alarms)} ({alarms.mean():.2%})")


if __name__ == "__main__":
    main()
