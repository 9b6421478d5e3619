"""A chain of manifests is told from the result back to the source data."""

import json
from pathlib import Path

import pytest

from components import cli
from components.runner import content_hash
from retinalogos import lineage


def write(folder: Path, step: str, params: dict, inputs: dict[str, Path]) -> Path:
    """An output as the runner leaves it."""
    folder.mkdir()
    (folder / "content.txt").write_text(step)
    hashes = {port: content_hash(path) for port, path in inputs.items()}
    manifest = {"step": step, "version": "1", "params": params, "inputs": hashes, "metrics": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"stages": lineage.before(inputs, hashes)}))
    return folder


@pytest.fixture
def generator(tmp_path: Path) -> Path:
    source = {"reader": "odir5k", "source_fingerprint": "abc123", "n": None, "seed": 3}
    cohort = write(tmp_path / "cohort", "ingest", source, {})
    captions = write(
        tmp_path / "captions", "caption", {"engine": "template", "wordings": {"fine": 1}}, {"cohort": cohort}
    )
    (tmp_path / "metrics.json").write_text("{}")
    inputs = {"cohort": cohort, "captions": captions, "metrics": tmp_path / "metrics.json"}
    return write(tmp_path / "generator", "finetune", {"steps": 5}, inputs)


def test_every_step_down_to_the_source_is_told_from_the_last_folder_alone(generator: Path, tmp_path: Path, capsys):
    for name in ("cohort", "captions"):
        (tmp_path / name / "content.txt").unlink()
        (tmp_path / name / "manifest.json").unlink()
    assert cli.main(["lineage", str(generator)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"{generator}: finetune 1"
    assert [line.split()[0] for line in told[1:]] == ["cohort", "reader", "source_fingerprint", "seed", "captions",
                                                      "cohort", "metrics"]  # fmt: skip
    assert '      source_fingerprint = "abc123"' in told
    assert told[-2].endswith("ingest 1, see above")
    assert told[-1].endswith("a file of its own, or made by no step")
    assert cli.main(["lineage", str(generator), "--parameters"]) == 0
    told = capsys.readouterr().out
    assert "wordings.fine = 1" in told
    assert "steps = 5" in told


def test_a_folder_that_no_step_wrote_has_no_lineage(tmp_path: Path, capsys):
    assert cli.main(["lineage", str(tmp_path)]) == 2
    assert "no step wrote this folder" in capsys.readouterr().err


def test_lineages_of_several_outputs_share_their_steps(generator: Path, tmp_path: Path):
    found = lineage.gather(
        {"generator": generator, "cohort": tmp_path / "cohort", "nothing": tmp_path / "metrics.json"}
    )
    assert found["outputs"].keys() == {"generator", "cohort"}
    assert sorted(entry["step"] for entry in found["stages"].values()) == ["caption", "ingest"]
    assert content_hash(tmp_path / "cohort") in found["stages"]
