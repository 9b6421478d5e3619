"""Logistic regression against scikit-learn's."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from retinalogos.training.logistic import logistic_regression


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(3, 4), st.sampled_from([0.1, 1.0]), st.booleans())
def test_it_finds_the_answer_of_scikit_learn(seed, classes, penalty, weighted):
    rng = np.random.default_rng(seed)
    rows, labels = (
        rng.normal(size=(60, 5)),
        np.concatenate([np.arange(classes), rng.integers(0, classes, 60 - classes)]),
    )
    shares = rng.uniform(0.1, 1, 60) if weighted else np.ones(60)
    # scikit-learn minimises the sum of weighted losses and 1 / (2·C) of each squared weight.
    reference = LogisticRegression(C=1 / (2 * penalty * shares.sum()), tol=1e-10, max_iter=10_000)
    reference.fit(rows, labels, sample_weight=shares)
    targets = torch.nn.functional.one_hot(torch.tensor(labels), classes)
    weights, bias = logistic_regression(
        torch.tensor(rows), targets, penalty, torch.tensor(shares) if weighted else None
    )
    np.testing.assert_allclose(weights.numpy(), reference.coef_, atol=1e-3)
    offset = bias.numpy() - reference.intercept_
    np.testing.assert_allclose(offset, offset[0], atol=2e-3)
