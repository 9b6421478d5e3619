"""Token budgets of the embedded text encoder."""

import pytest

from retinalogos.captions.tokens import TokenBudget


@pytest.fixture(scope="session")
def budgets() -> dict[int, TokenBudget]:
    """A tight one, the small presets', a middle one and the paper's."""
    return {limit: TokenBudget("minilm", limit) for limit in (48, 64, 100, 256)}


@pytest.fixture(scope="session")
def budget(budgets: dict[int, TokenBudget]) -> TokenBudget:
    """The small presets' budget."""
    return budgets[64]


@pytest.fixture(scope="session")
def wide_budget(budgets: dict[int, TokenBudget]) -> TokenBudget:
    """The paper's budget."""
    return budgets[256]
