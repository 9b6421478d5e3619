"""Multinomial logistic regression: what a linear model tells of classes, in a second."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

# Far more than it takes for some hundred standardised features.
_MOST_ITERATIONS = 500


def logistic_regression(
    rows_nd: Tensor, targets_nk: Tensor, penalty: float, weights_n: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Weights k×d and biases k, float32, of least cross entropy plus ``penalty`` times the sum of squared weights.

    Computed in float64 by L-BFGS from zero: the same rows give the same answer.

    Args:
        rows_nd: features, best of about unit variance.
        targets_nk: probabilities of the classes, each row of sum 1.
        penalty: per squared weight, beside the weighted mean of the cross entropy; biases are free.
        weights_n: of the rows; ``None``: all alike.
    """
    rows, targets = rows_nd.double(), targets_nk.double()
    shares = torch.ones(len(rows)).double() if weights_n is None else weights_n.double()
    shares = shares / shares.sum()
    weights = torch.zeros(targets.shape[1], rows.shape[1], dtype=torch.double, requires_grad=True)
    bias = torch.zeros(targets.shape[1], dtype=torch.double, requires_grad=True)
    solver = torch.optim.LBFGS([weights, bias], max_iter=_MOST_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        each = cross_entropy(rows @ weights.T + bias, targets, reduction="none")
        total = (shares * each).sum() + penalty * weights.square().sum()
        total.backward()
        return total

    with torch.enable_grad():
        solver.step(loss)
    return weights.detach().float(), bias.detach().float()
