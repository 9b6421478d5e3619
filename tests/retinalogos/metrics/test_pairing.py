"""Pictures and captions that belong together find each other; those that were swapped do not."""

import numpy as np
import pytest

from retinalogos.captions.configuration import ContrastiveConfig
from retinalogos.metrics.pairing import PairingJudge, fit_pairing_judge, pairing

CONFIG = ContrastiveConfig(
    folds=2, dimension=16, hidden=32, dropout=0.1, steps=60, batch_size=64, learning_rate=0.005, weight_decay=0.1
)
SIDES, DISEASES = ("left", "right"), ("no retinopathy", "mild haemorrhages", "severe exudates", "new vessels")


def pairs(n: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Features that tell side and disease among noise, and captions that name them."""
    rng = np.random.default_rng(seed)
    side, disease = rng.integers(0, 2, n), rng.integers(0, 4, n)
    told = np.concatenate([np.eye(2)[side], np.eye(4)[disease]], 1) * 3
    features = np.concatenate([told + rng.normal(0, 0.3, told.shape), rng.normal(0, 1, (n, 8))], 1)
    return features, [f"Photograph of the {SIDES[s]} eye, {DISEASES[d]}." for s, d in zip(side, disease, strict=True)]


@pytest.fixture(scope="module")
def judge() -> PairingJudge:
    judge = fit_pairing_judge(*pairs(200, 0), CONFIG, 0)
    assert judge is not None
    return judge


def test_true_pairs_find_each_other_both_ways(judge: PairingJudge) -> None:
    found = pairing(judge, *pairs(80, 1), 100, 0)
    assert set(found) == {"image_to_text", "text_to_image"}
    for estimate in found.values():
        assert estimate.value > 0.9
        assert estimate.n == 80


def test_pictures_with_the_captions_of_others_find_them_by_chance(judge: PairingJudge) -> None:
    features, captions = pairs(200, 1)
    order = np.random.default_rng(0).permutation(200)
    for estimate in pairing(judge, features, [captions[at] for at in order], 200, 0).values():
        assert estimate.low < 0.5 < estimate.high


def test_one_caption_for_all_tells_nothing(judge: PairingJudge) -> None:
    features, captions = pairs(10, 1)
    same = captions[:1] * 10
    assert fit_pairing_judge(features, same, CONFIG, 0) is None
    assert all(np.isnan(estimate.value) for estimate in pairing(judge, features, same, 50, 0).values())


def test_pictures_of_the_same_caption_are_no_rivals(judge: PairingJudge) -> None:
    features, captions = pairs(30, 2)
    once = pairing(judge, features, captions, 0, 0)
    doubled = pairing(judge, np.repeat(features, 2, 0), [text for text in captions for _ in range(2)], 0, 0)
    for name, estimate in once.items():
        assert doubled[name].value == pytest.approx(estimate.value)
