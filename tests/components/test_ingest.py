import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import yaml
from drawn_eye import draw_eye
from pydantic import ValidationError

from components.ingest.step import STEP
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import DataError, UsageError

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


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository whose DVC tracks a small data set in the folder ``clinic``, in a remote beside it."""
    folder = tmp_path / "repository"
    clinic = folder / "clinic"
    (clinic / "photos").mkdir(parents=True)
    for number in range(12):
        cv2.imwrite(str(clinic / "photos" / f"{number}.png"), draw_eye(number)[..., ::-1])
    (clinic / "labels.csv").write_text("file,person\n" + "".join(f"{n}.png,p{n}\n" for n in range(12)))
    for command in (
        ["git", "init", "--quiet"],
        [sys.executable, "-m", "dvc", "init", "--quiet"],
        [sys.executable, "-m", "dvc", "remote", "add", "--default", "disk", str(tmp_path / "remote")],
    ):
        subprocess.run(command, cwd=folder, check=True)
    return folder


def push(repository: Path) -> str:
    """Commits and pushes the data set as it is now; the answer is the commit."""
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (
        [sys.executable, "-m", "dvc", "add", "--quiet", "clinic"],
        [sys.executable, "-m", "dvc", "push", "--quiet"],
        [*git, "add", "--all"],
        [*git, "commit", "--quiet", "--message", "data"],
    ):
        subprocess.run(command, cwd=repository, check=True)
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_a_revision_of_a_data_set_is_what_dvc_has_of_it(tmp_path: Path, repository: Path, monkeypatch) -> None:
    monkeypatch.setenv("RETINALOGOS_PSEUDONYM_KEY", "secret" * 8)
    mapping = tmp_path / "columns.yaml"
    mapping.write_text("{table: labels.csv, images: photos, image: file, patient: person}")
    common = {"reader": "table", "mapping": str(mapping), "n": None, "size": 64, "workers": 1}
    first = push(repository)
    STEP.run(
        STEP.params(**defaults(**common, source=str(repository / "clinic"))), {}, {"cohort": tmp_path / "by_folder"}
    )
    (repository / "clinic" / "labels.csv").write_text("file,person\n0.png,p0\n1.png,p1\n2.png,p2\n")
    push(repository)

    dvc = {**common, "repository": str(repository), "source": "clinic"}
    params = STEP.params(**defaults(**dvc, revision=first))
    metrics = STEP.run(params, {}, {"cohort": tmp_path / "by_revision"})
    assert Cohort(tmp_path / "by_revision").meta == Cohort(tmp_path / "by_folder").meta, "not what lies there now"
    assert metrics["dvc_revision"] == first
    recorded = params.model_dump(mode="json")
    assert recorded["revision"] == first
    assert not {"repository", "source"} & recorded.keys(), "places are no part of a result"

    with pytest.raises(DataError, match="DVC does not give clinic of"):
        STEP.run(STEP.params(**defaults(**dvc, revision="0" * 40)), {}, {"cohort": tmp_path / "none"})


@pytest.mark.parametrize(
    "change",
    [
        {"revision": "main"},
        {"revision": "0" * 40},
        {"repository": "somewhere", "source": "here"},
        {"repository": "somewhere", "revision": "0" * 40},
    ],
)
def test_a_revision_is_a_full_commit_and_goes_with_a_repository_and_a_path(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="revision"):
        STEP.params(**defaults(**change))
