"""The report on captions: what it counts, that its sample is by lot and small, and its command."""

import hashlib
import json
import math

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinalogos.captions import quality
from retinalogos.captions.quality import Tally, agreement, draw_captions, find_records, report
from retinalogos.captions.style import Experts
from retinalogos.captions.table import CaptionWriter
from retinalogos.cohort.shards import Cohort, CohortWriter
from retinalogos.errors import DataError

RECORD = {
    "eye": "left",
    "dr_grade": 2,
    "glaucoma": None,
    "vcdr": 0.42,
    "findings": ["hard_exudate", "drusen", "diabetic_retinopathy"],
}


def tally(text, record=RECORD):
    return agreement([text], [record])


def test_what_a_caption_tells_rightly_wrongly_and_not():
    found = tally(
        "Left eye, moderate non-proliferative diabetic retinopathy. Cup-to-disc ratio about 0.4. Hard exudates."
    )
    assert found.attributes["eye"] == Tally(1, 1, 1, 1)
    assert found.attributes["grade"] == Tally(1, 1, 1, 1)
    assert found.attributes["cup-to-disc ratio"] == Tally(1, 1, 1, 1)
    assert found.attributes["side of the disc"] == Tally(known=1)
    assert found.attributes["glaucoma"] == Tally()
    # That there is diabetic retinopathy is said by its grade; drusen are not told.
    assert found.findings == Tally(known=2, told=1, stated=1, supported=1)
    wrong = tally("Right eye, severe non-proliferative diabetic retinopathy, glaucoma and a macular hole. No drusen.")
    assert wrong.attributes["eye"] == Tally(known=1, stated=1)
    assert wrong.attributes["grade"] == Tally(known=1, stated=1)
    assert wrong.attributes["glaucoma"] == Tally(stated=1)
    assert wrong.findings == Tally(known=2, stated=1)
    assert (wrong.ruled_out, wrong.ruled_out_wrongly) == (1, 1)
    assert wrong.all == Tally(known=6, stated=4)
    assert (wrong.all.told_share, wrong.all.supported_share) == (0, 0)


def test_a_caption_that_names_both_eyes_tells_the_right_one_and_is_not_supported():
    assert tally("Left eye beside the right eye.").attributes["eye"] == Tally(known=1, told=1, stated=1)


def test_findings_are_counted_one_by_one():
    texts = ["The macula shows drusen.", "The retina shows hard exudates.", "Nothing."]
    found = agreement(texts, [RECORD] * 3)
    assert found.by_finding == {"hard_exudate": Tally(known=3, told=1), "drusen": Tally(known=3, told=1)}
    assert found.words_of_finding["drusen"] == {"macula", "show", "drusen"}


def test_a_more_exact_finding_says_the_general_one():
    record = {"findings": ["amd", "wet_amd"]}
    assert tally("The appearance suggests wet age-related macular degeneration.", record).findings == Tally(1, 1, 1, 1)
    assert math.isnan(tally("Nothing.", {}).all.told_share)


def write(folder, n=300):
    """A cohort of ``n`` eyes without pictures, and its captions, coarse and fine."""
    with CohortWriter(folder / "cohort", "phantom") as writer:
        for i in range(n):
            image_id = hashlib.sha256(str(i).encode()).hexdigest()[:16]
            side = ("left", "right")[i % 2]
            writer.add(
                {"image_id": image_id, "patient_id": f"p{i}", "eye": side, "split": "train", "source": "phantom"}
                | {"width": 8, "height": 8, "sha256": image_id, "image": {"bytes": b"", "path": ""}}
            )
    with CaptionWriter(folder / "captions", 64, "minilm") as writer:
        for i in range(n):
            image_id = hashlib.sha256(str(i).encode()).hexdigest()[:16]
            for granularity in ("coarse", "fine"):
                writer.add(
                    {"image_id": image_id, "granularity": granularity, "wording": 0, "tokens": 5, "engine": "made"}
                    | {
                        "prompt_version": "1",
                        "seed": 0,
                        "text": f"{('Left', 'Right')[i % 2]} eye {granularity} {'x' * i}.",
                    }
                )
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write(tmp_path_factory.mktemp("quality"))


def test_a_sample_is_by_lot_without_repetition_and_the_same_again(made):
    first = draw_captions(made / "captions", 100, 0)
    keys = [(row["image_id"], row["granularity"]) for row in first]
    assert len(set(keys)) == 100
    assert first == draw_captions(made / "captions", 100, 0)
    assert keys != [(row["image_id"], row["granularity"]) for row in draw_captions(made / "captions", 100, 1)]
    every = pq.read_table(made / "captions" / "captions.parquet").to_pylist()
    order = [(row["image_id"], row["granularity"]) for row in every]
    places = [order.index(key) for key in keys]
    assert places != sorted(places)
    assert max(places) > 500
    assert len(draw_captions(made / "captions", 10**6, 0)) == 600


def test_a_sample_of_one_granularity(made):
    assert {row["granularity"] for row in draw_captions(made / "captions", 50, 0, "fine")} == {"fine"}
    assert len(draw_captions(made / "captions", 1000, 0, "coarse")) == 300


def test_captions_of_many_row_groups_are_found(made, tmp_path):
    (tmp_path / "captions.json").write_text((made / "captions" / "captions.json").read_text())
    table = pq.read_table(made / "captions" / "captions.parquet")
    pq.write_table(table, tmp_path / "captions.parquet", row_group_size=7)
    assert draw_captions(tmp_path, 40, 3) == draw_captions(made / "captions", 40, 3)


@settings(max_examples=20, deadline=None)
@given(chosen=st.sets(st.integers(0, 299), max_size=12), at_once=st.sampled_from([1, 50, 64, 1000]))
def test_records_are_found_wherever_they_stand(made, chosen, at_once):
    cohort = Cohort(made / "cohort")
    rows = cohort.table(("image_id", "eye")).to_pylist()
    wanted = {rows[i]["image_id"]: rows[i] for i in chosen}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "_IDS_AT_ONCE", at_once)
        assert find_records(cohort, set(wanted), ("image_id", "eye")) == wanted


def test_only_row_groups_with_a_record_wanted_are_read(made, monkeypatch):
    cohort = Cohort(made / "cohort")
    image_id = cohort.table(("image_id",))["image_id"][130].as_py()
    read, whole = [], pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda file, group, **options: read.append(group) or whole(file, group, **options),
    )
    assert find_records(cohort, {image_id})[image_id]["eye"] == "left"
    assert read == [130 // 64]


def test_captions_of_another_cohort_are_told(made):
    with pytest.raises(DataError, match="has no image 0000"):
        find_records(Cohort(made / "cohort"), {"0000"})


def test_a_report_holds_captions_against_records(made):
    found = report(made / "captions", Cohort(made / "cohort"), 200, 0)
    assert (found.captions, found.sample) == (600, 200)
    assert sum(len(style.texts) for style in found.styles.values()) == 200
    for agreed in found.agreements.values():
        assert agreed.attributes["eye"].supported_share == agreed.attributes["eye"].told_share == 1
    metrics = found.metrics()
    assert metrics["record_told_fine"] == 0.5  # the eye, and not the side of its disc
    assert metrics == report(made / "captions", Cohort(made / "cohort"), 200, 0).metrics()


def test_words_that_are_rare_in_captions_can_be_left_out(made):
    found = report(made / "captions", None, 600, 0, Experts({"a": ["left lesion"]}))
    assert found.words_of_captions_alone(10, least=5) == ["eye", "coarse", "fine", "right"]
    assert len(found.words_of_captions_alone(100, least=1)) == 100
    assert found.words_of_experts_alone(5) == ["lesion"]


def test_the_command_prints_tables(made, tmp_path, capsys):
    experts = tmp_path / "experts.json"
    experts.write_text(json.dumps({"definitions": {"hard exudates": ["small yellowish deposits"]}}))
    call = ["--captions", str(made / "captions"), "--sample", "80"]
    assert quality.main([*call, "--cohort", str(made / "cohort"), "--expert", str(experts)]) == 0
    printed = capsys.readouterr().out
    assert "80 of 600 captions" in printed
    assert "|  | coarse | fine | experts |" in printed
    assert "| eye | 100.0 % | 100.0 % | 100.0 % | 100.0 % |" in printed
    assert quality.main(call) == 0
    assert "experts" not in capsys.readouterr().out


def test_wrong_use_of_the_command_is_told_in_a_line(made, tmp_path, capsys):
    assert quality.main(["--captions", str(tmp_path)]) == 2
    assert "run `caption`" in capsys.readouterr().err
    assert quality.main(["--captions", str(made / "captions"), "--expert", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err
    (other := tmp_path / "other").mkdir()
    write(other, n=3)
    with CohortWriter(tmp_path / "cohort", "phantom") as writer:
        row = next(iter(Cohort(other / "cohort").rows())) | {"image_id": "ff"}
        writer.add(row)
    assert quality.main(["--captions", str(other / "captions"), "--cohort", str(tmp_path / "cohort")]) == 1
    assert "name the cohort that the captions are of" in capsys.readouterr().err
