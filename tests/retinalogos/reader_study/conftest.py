"""Two cohorts whose pictures tell each other apart to nobody, and a small study of them."""

from pathlib import Path

import pytest
from study_at_hand import write_cohort

from retinalogos.reader_study.design import Study, prepare


@pytest.fixture(scope="session")
def cohorts(tmp_path_factory) -> dict[str, Path]:
    """50 real pictures of 48 pixels, 45 of them in the test split, and 40 synthetic ones of 40 pixels."""
    folder = tmp_path_factory.mktemp("cohorts")
    return {
        "real": write_cohort(folder / "real", "real", 50, 48),
        "synthetic": write_cohort(folder / "synthetic", "synthetic", 40, 40),
    }


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "study"


@pytest.fixture
def study(cohorts, folder) -> Study:
    """Six pictures of each kind, of which two come twice: 16 trials."""
    return prepare(cohorts["real"], cohorts["synthetic"], folder, images=6, repeats=2, seed=3)
