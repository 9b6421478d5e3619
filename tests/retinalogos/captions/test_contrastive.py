"""The contrastive model: it ranks wrong pairs last, judges no pair that it saw, and leaves equal captions alone."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from retinalogos.captions import contrastive
from retinalogos.captions.configuration import ContrastiveConfig

CONFIG = ContrastiveConfig(
    folds=3, dimension=8, hidden=32, dropout=0.0, steps=60, batch_size=64, learning_rate=0.01, weight_decay=0.1
)


def planted(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[str], np.ndarray]:
    """Pictures and captions that share four signs, two pictures a patient; every tenth caption is another's."""
    draw = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (240, 4), generator=draw).float() * 2 - 1
    images = torch.cat([signs, torch.randn(240, 6, generator=draw)], 1) @ torch.randn(10, 10, generator=draw)
    texts = torch.cat([signs, 0.3 * torch.randn(240, 6, generator=draw)], 1) @ torch.randn(10, 10, generator=draw)
    wrong = np.arange(240) % 10 == 0
    caption = torch.arange(240)
    caption[wrong] = caption[wrong].roll(7)
    wrong &= (signs[caption] != signs).any(1).numpy()
    pairs = torch.stack([torch.arange(240), caption], 1)
    return images, texts, pairs, [str(i // 2) for i in range(240)], wrong


def test_wrong_pairs_come_last_and_the_same_seed_gives_the_same_scores():
    images, texts, pairs, groups, wrong = planted()
    state = torch.get_rng_state()
    scores = contrastive.out_of_fold(images, texts, pairs, groups, CONFIG, seed=1)
    assert torch.equal(torch.get_rng_state(), state), "the global random state is left alone"
    ranks = scores.argsort().argsort().numpy()
    assert ranks[wrong].mean() < 0.2 * len(ranks)
    assert torch.equal(scores, contrastive.out_of_fold(images, texts, pairs, groups, CONFIG, seed=1))


def test_no_model_sees_a_pair_of_a_patient_that_it_judges(monkeypatch):
    images, texts, pairs, groups, _ = planted()
    judged, trained = [], []
    fit, specificity = contrastive.fit, contrastive.specificity
    monkeypatch.setattr(contrastive, "fit", lambda i, t, p, c, s: trained.append(p) or fit(i, t, p, c, s))
    monkeypatch.setattr(
        contrastive, "specificity", lambda i, t, c, p, s: judged.append(p) or specificity(i, t, c, p, s)
    )
    short = CONFIG.model_copy(update={"steps": 1})
    contrastive.out_of_fold(images, texts, pairs, groups, short, seed=0)
    assert len(judged) == len(trained) == CONFIG.folds
    assert sum(map(len, judged)) == len(pairs)
    for seen, unseen in zip(trained, judged, strict=True):
        patients = [{groups[image] for image in part[:, 0].tolist()} for part in (seen, unseen)]
        assert not patients[0] & patients[1]


def test_one_patient_alone_is_not_judged():
    images, texts, pairs, _, _ = planted()
    assert not contrastive.out_of_fold(images, texts, pairs, ["one"] * 240, CONFIG, seed=0).any()


@given(st.integers(2, 9), st.data())
def test_equal_captions_are_no_counterexamples(n, data):
    similarity = torch.randn(n, n, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
    texts = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    same = texts[:, None] == texts[None, :]
    raised = similarity + 100.0 * (same & ~torch.eye(n, dtype=torch.bool))
    torch.testing.assert_close(contrastive.info_nce(raised, same), contrastive.info_nce(similarity, same))
    assert torch.isfinite(contrastive.info_nce(similarity, same))


def test_without_equal_captions_it_is_the_loss_of_clip():
    similarity = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    target = torch.arange(5)
    expected = (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2
    assert contrastive.info_nce(similarity, torch.eye(5, dtype=torch.bool)) == pytest.approx(float(expected))


def test_what_belongs_to_picture_or_caption_alone_does_not_count():
    # The second caption is near every picture: that makes none of its pairs specific.
    images = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), dim=1)
    texts = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), dim=1)
    scores = contrastive.specificity(images, texts, 10.0, torch.tensor([[0, 0], [1, 1], [0, 1], [1, 0]]), seed=0)
    assert scores[0] > scores[2]
    assert scores[1] > scores[3]


def test_more_captions_than_references_are_judged_against_a_sample(monkeypatch):
    images, texts, pairs, _, _ = planted()
    units = F.normalize(images, dim=1), F.normalize(texts, dim=1)
    whole = contrastive.specificity(*units, 5.0, pairs, seed=0)
    monkeypatch.setattr(contrastive, "_REFERENCES", 120)
    part = contrastive.specificity(*units, 5.0, pairs, seed=0)
    assert part.shape == whole.shape
    assert float((part - whole).abs().mean()) < 0.2
