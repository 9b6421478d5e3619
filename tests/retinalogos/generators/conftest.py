import pytest
from latents_at_hand import write_latents


@pytest.fixture
def latents_folder(tmp_path):
    return write_latents(tmp_path / "latents")
