import json
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from components.ingest.step import STEP
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import UsageError

ROOT = Path(__file__).parents[2]


def defaults(**changes: object) -> dict[str, object]:
    return yaml.safe_load((ROOT / "params.yaml").read_text())["ingest"] | changes


def test_defaults_fit_the_declared_parameters() -> None:
    params = STEP.params(**defaults())
    assert params.reader == "phantom"
    assert params.train + params.validation + params.test == pytest.approx(1)


@pytest.mark.parametrize("change", [{"size": 8}, {"quarantine_share": 2}, {"jpeg_quality": 10}, {"unknown": 1}])
def test_a_value_out_of_range_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        STEP.params(**defaults(**change))


def test_the_phantom_becomes_a_cohort_twice_the_same(tmp_path: Path) -> None:
    params = STEP.params(**defaults(n=24, size=64, workers=1))
    metrics = [STEP.run(params, {}, {"cohort": tmp_path / name}) for name in ("one", "two")]
    assert metrics[0] == metrics[1]
    assert metrics[0]["rows"] == 24
    assert metrics[0]["quarantined"] == 0
    assert sum(metrics[0][f"rows_{split}"] for split in ("train", "validation", "test")) == 24
    json.dumps(metrics[0])
    one, two = (Cohort(tmp_path / name) for name in ("one", "two"))
    assert one.meta == two.meta
    row = next(one.rows())
    assert all(row[name] is not None for name in ("lesions", "vessels", "disc_cup", "fov", "truth"))
    assert one.meta["sources"] == {"phantom": ["Apache-2.0"]}


def test_an_unknown_reader_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no reader"):
        STEP.run(STEP.params(**defaults(reader="odir6k")), {}, {"cohort": tmp_path / "cohort"})


@pytest.mark.data
def test_a_real_set_becomes_a_cohort(tmp_path: Path, real_data: Path) -> None:
    changes = {"reader": "drishti_gs", "source": str(real_data / "drishti_gs"), "name": "drishti", "size": 64}
    metrics = STEP.run(STEP.params(**defaults(**changes, workers=1)), {}, {"cohort": tmp_path / "cohort"})
    assert metrics["rows"] == 101
    assert metrics["images_glaucoma_glaucoma"] == 70
    assert len(Cohort(tmp_path / "cohort")) == 101
