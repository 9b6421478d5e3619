"""The loss that weighs a structure of ten pixels as much as one of a thousand."""

from torch import Tensor


def soft_dice(told: Tensor, truth: Tensor, counted: Tensor, over: tuple[int, ...]) -> Tensor:
    """Dice coefficient of probabilities and truth (Milletari et al., 3DV 2016), 1 where they agree wholly.

    One pixel is added to both: a structure that neither is there nor is seen is no fault.

    Args:
        told: probabilities, b×c×h×w, 0-1.
        truth: of the same shape, 0-1.
        counted: where they count, 0 or 1, of a shape that broadcasts.
        over: axes that are summed.
    """
    told, truth = told * counted, truth * counted
    return (2 * (told * truth).sum(over) + 1) / (told.sum(over) + truth.sum(over) + 1)
