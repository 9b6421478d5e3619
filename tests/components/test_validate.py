"""The step `validate`: a sound cohort passes, and each planted fault is found by its own expectation."""

import json

import pyarrow.parquet as pq
import pytest
from captioned_cohort import defaults, digest, write_cohort

from components.runner import check_params, content_hash
from components.validate.docs import validate_tables
from components.validate.parameters import ValidateParams
from components.validate.step import STEP
from components.validate.suites import captions_suites, cohort_suites
from components.validate.tables import captions_tables, cohort_tables
from retinalogos.captions.engine import CaptionRequest, TemplateEngine
from retinalogos.captions.rules import RULES
from retinalogos.captions.table import CaptionWriter, read_captions_meta
from retinalogos.captions.tokens import TokenBudget
from retinalogos.cohort.schema import TABLE_COLUMNS
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import DataError

# The small cohort of these tests has few eyes of a class.
SMALL = {"min_class_images": 0}


def params(**changes) -> ValidateParams:
    return check_params(STEP, defaults("validate") | SMALL | changes)


def validate(cohort, out, captions=None, **changes):
    inputs = {"cohort": cohort} | ({"captions": captions} if captions else {})
    return STEP.run(params(**changes), inputs, {"validation": out})


def outcome(name, cohort, captions=None, **changes):
    """The finding of one expectation: its table alone is validated, and no Data Docs are written, to be quick."""
    if captions is None:
        tables, suites = cohort_tables(Cohort(cohort), 1000), cohort_suites(params(**changes))
    else:
        file = pq.ParquetFile(captions / "captions.parquet")
        tables = captions_tables(Cohort(cohort), file, read_captions_meta(captions), 1000, 1000)
        suites = captions_suites(params(**changes), 64)
    ((table, suite),) = [
        (table, suite)
        for table, suite in suites.items()
        if name in [expectation.meta["name"] for expectation in suite.expectations]
    ]
    findings = validate_tables((pair for pair in tables if pair[0] == table), {table: suite}, folder=None)
    (found,) = [finding for finding in findings if finding.name == name]
    return found


def broken(name, cohort, captions=None):
    """The severity of an expectation that fails; None where it holds."""
    finding = outcome(name, cohort, captions)
    return None if finding.passed else finding.severity


def failed(out, severity="error"):
    """Names of the expectations that failed."""
    findings = json.loads((out / "verdict.json").read_text())["findings"]
    return {finding["name"] for finding in findings if not finding["passed"] and finding["severity"] == severity}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("data") / "cohort")


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    """A cohort to caption; its captions are checked in full."""
    return write_cohort(tmp_path_factory.mktemp("data") / "cohort", n=40)


@pytest.fixture(scope="module")
def validated(sound, tmp_path_factory):
    out = tmp_path_factory.mktemp("validated") / "validation"
    return validate(sound, out), out


def write_captions(cohort, folder, change=None):
    """Captions of a cohort; ``change`` plants faults in their rows."""
    budget = TokenBudget("minilm", 64)
    requests = (
        CaptionRequest(record["image_id"], record, "fine", wording, seed=0)
        for record in Cohort(cohort).rows(TABLE_COLUMNS)
        for wording in range(2)
    )
    rows = [dict(vars(result)) for result in TemplateEngine(budget).caption(requests)]
    if change is not None:
        change(rows)
    with CaptionWriter(folder, 64, "minilm") as writer:
        for row in rows:
            writer.add(row)
    return folder


def test_a_sound_cohort_passes(validated):
    metrics, out = validated
    verdict = json.loads((out / "verdict.json").read_text())
    assert verdict["passed"] is True
    assert metrics["passed"] is True
    assert metrics["expectations"] == len(verdict["findings"]) > 30
    assert failed(out) == failed(out, "warning") == set()
    assert all(finding["observed"] and finding["why"] for finding in verdict["findings"])


def test_data_docs_are_html_with_every_expectation(validated):
    _, out = validated
    assert (out / "data_docs" / "index.html").is_file()
    pages = "".join(page.read_text() for page in (out / "data_docs").rglob("*.html"))
    for finding in json.loads((out / "verdict.json").read_text())["findings"]:
        assert finding["suite"] in pages
    # No page calls home with the time of the run, and the logo is the local one.
    assert "?d=" not in pages
    assert (out / "data_docs" / "static" / "images" / "logo-long.png").is_file()


def test_outputs_are_the_same_bytes_each_time(sound, validated, tmp_path):
    _, out = validated
    validate(sound, tmp_path / "again")
    assert content_hash(tmp_path / "again") == content_hash(out)


def test_no_patient_appears_in_the_outputs(sound, validated):
    _, out = validated
    patients = set(Cohort(sound).table(["patient_id"])["patient_id"].to_pylist())
    for page in [*out.rglob("*.html"), out / "verdict.json"]:
        text = page.read_text()
        assert not any(patient in text for patient in patients)


def leak(rows):
    twin = next(i for i in range(1, len(rows)) if rows[i]["patient_id"] == rows[i - 1]["patient_id"])
    rows[twin]["split"] = "test" if rows[twin]["split"] == "train" else "train"


def split_duplicates(rows):
    first, other = rows[0], next(row for row in rows if row["split"] != rows[0]["split"])
    first["duplicate_group"] = other["duplicate_group"] = first["image_id"]


def setting(**columns):
    def change(rows):
        rows[5].update(columns)

    return change


def no_test_split(rows):
    for row in rows:
        row["split"] = "train"


def few(rows):
    del rows[12:]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("patient in one split", leak),
        ("duplicates in one split", split_duplicates),
        ("dr_grade is an ICDR grade", setting(dr_grade=5)),
        ("eye in the vocabulary", setting(eye="OS")),
        ("sex in the vocabulary", setting(sex="F")),
        ("glaucoma in the vocabulary", setting(glaucoma="yes")),
        ("split in the vocabulary", setting(split="holdout")),
        ("dme is 0 or 1", setting(dme=2)),
        ("age in years", setting(age=640.0)),
        ("vertical cup-to-disc ratio", setting(vcdr=1.4)),
        ("quality score in its range", setting(quality=-0.5)),
        ("image size", setting(width=8, height=8)),
        ("images are square", setting(height=96)),
        ("image_id is a content hash", setting(image_id="eye 5")),
        ("sha256 is a hash", setting(sha256="none")),
        ("patient_id is given", setting(patient_id="")),
        ("findings in the vocabulary", setting(findings=["exsudate"])),
        ("validation split has images", no_test_split),
        ("number of images", few),
    ],
)
def test_each_fault_is_an_error(name, change, tmp_path):
    assert broken(name, write_cohort(tmp_path / "cohort", change)) == "error"


def test_a_picture_that_was_changed_afterwards_is_an_error(tmp_path):
    cohort = write_cohort(tmp_path / "cohort")
    (shard,) = Cohort(cohort).shards
    table = pq.read_table(shard)
    images = table["image"].to_pylist()
    images[0]["bytes"] = b"rubbish"
    place = table.schema.get_field_index("image")
    pq.write_table(table.set_column(place, table.schema.field(place), [images]), shard)
    assert broken("shards are as written", cohort) == "error"
    with pytest.raises(DataError, match=f"image {table['image_id'][0]} is damaged"):
        list(Cohort(cohort).images())


def test_a_damaged_cohort_is_named(tmp_path):
    cohort = write_cohort(tmp_path / "cohort")
    (shard,) = Cohort(cohort).shards
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(DataError, match=f"{shard} is missing or damaged"):
        Cohort(cohort)
    shard.unlink()
    with pytest.raises(DataError, match=f"{shard} is missing or damaged"):
        Cohort(cohort)
    (cohort / "cohort.json").write_text("{")
    with pytest.raises(DataError, match=r"cohort\.json is damaged"):
        Cohort(cohort)


def test_an_error_stops_the_step_names_the_row_and_leaves_docs_and_verdict(tmp_path):
    cohort = write_cohort(tmp_path / "cohort", setting(dr_grade=7))
    with pytest.raises(DataError, match=f"failed validation: dr_grade is an ICDR grade.*{digest('image 5')[:16]}"):
        validate(cohort, tmp_path / "validation")
    assert failed(tmp_path / "validation") == {"dr_grade is an ICDR grade"}
    assert (tmp_path / "validation" / "data_docs" / "index.html").is_file()
    assert json.loads((tmp_path / "validation" / "verdict.json").read_text())["passed"] is False


def poor(rows):
    for row in rows[:20]:
        row["quality"] = 0.05


def duplicates(rows):
    for row in rows:
        if row["split"] == "train":
            row["duplicate_group"] = rows[0]["image_id"]


def inconsistent(rows):
    healthy = next(row for row in rows if row["dr_grade"] == 0)
    healthy["findings"] = ["microaneurysm"]


def large_healthy_cup(rows):
    next(row for row in rows if row["glaucoma"] == "no")["vcdr"] = 0.95


def copied(rows):
    rows[1]["sha256"] = rows[0]["sha256"]


def unlabelled(rows):
    rows[0].update(dr_grade=None, glaucoma=None, findings=None)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("quality above the floor", poor),
        ("share of duplicates", duplicates),
        ("findings fit the grade", inconsistent),
        ("cup fits the glaucoma status", large_healthy_cup),
        ("copies are marked", copied),
        ("licence is given", setting(licence=None)),
        ("reports hold no identifier", setting(report="Seen on 12/03/2019 by Dr. Miller.")),
        ("eye has a grade, glaucoma status or findings", unlabelled),
    ],
)
def test_each_oddity_is_a_warning(name, change, tmp_path):
    assert broken(name, write_cohort(tmp_path / "cohort", change)) == "warning"


def test_a_warning_is_listed_and_stops_nothing(tmp_path):
    cohort = write_cohort(tmp_path / "cohort", setting(licence=None))
    assert validate(cohort, tmp_path / "validation")["warnings"] == 1
    assert failed(tmp_path / "validation", "warning") == {"licence is given"}


def test_many_inconsistent_grades_are_an_error(tmp_path):
    def change(rows):
        for row in rows:
            if row["dr_grade"] == 0:
                row["findings"] = ["microaneurysm"]

    assert broken("findings fit the grade in most eyes", write_cohort(tmp_path / "cohort", change)) == "error"


def test_a_rare_class_is_named_with_its_split(tmp_path):
    def change(rows):
        for row in rows:
            if row["split"] == "test" and row["dr_grade"] == 4:
                row["dr_grade"] = 3

    rare = outcome("images of each class in each split", write_cohort(tmp_path / "cohort", change), min_class_images=1)
    assert not rare.passed
    assert "dr_grade 4, test" in rare.observed


def test_chunks_find_what_the_whole_finds(tmp_path):
    """In chunks of 25 rows a leaking patient, a bad row and a repeated id are found as in one."""

    def change(rows):
        leak(rows)
        rows[70]["dr_grade"] = 9

    cohort = Cohort(write_cohort(tmp_path / "cohort", change))
    chunks = list(cohort_tables(cohort, 25))
    assert [name for name, _ in chunks].count("cohort_rows") == 5
    whole, chunked = (
        validate_tables(tables, cohort_suites(params()), folder=None)
        for tables in (cohort_tables(cohort, 1000), iter(chunks))
    )
    assert whole == chunked
    assert {"patient in one split", "dr_grade is an ICDR grade"} <= {f.name for f in chunked if not f.passed}


def test_each_chunk_has_its_page(sound, tmp_path):
    validate(sound, tmp_path / "validation", chunk_rows=60)
    assert len(list((tmp_path / "validation").glob("data_docs/validations/cohort_rows/chunk-*"))) == 2


def test_repeated_image_ids_are_found(sound):
    """The writer refuses them, so they are planted in the table that the suites see."""
    tables = list(cohort_tables(Cohort(sound), 1000))
    tables[-1][1]["repeated_image_ids"] = 1
    findings = validate_tables(iter(tables), cohort_suites(params()), folder=None)
    assert {finding.name for finding in findings if not finding.passed} == {"image_id stands once"}


def test_gathered_counts_see_repeated_ids(tmp_path):
    cohort = Cohort(write_cohort(tmp_path / "cohort", n=40))
    cohort.shards *= 2
    whole = dict(cohort_tables(cohort, 1000))["cohort_whole"].iloc[0]
    assert whole["repeated_image_ids"] == 40
    assert whole["unmarked_copies"] == 40
    assert whole["images"] == 2 * whole["stated_images"]


def test_sound_captions_pass(captioned, tmp_path):
    captions = write_captions(captioned, tmp_path / "captions")
    metrics = validate(captioned, tmp_path / "validation", captions)
    assert metrics == {"passed": True, "expectations": metrics["expectations"], "errors": 0, "warnings": 0}
    suites = {
        finding["suite"] for finding in json.loads((tmp_path / "validation" / "verdict.json").read_text())["findings"]
    }
    assert suites == {"captions_rows", "captions_images", "captions_whole"}


def retold(text):
    def change(rows):
        for row in rows[:6]:  # more than max_violation_share of the 80
            row["text"] = text
            row["tokens"] = TokenBudget("minilm", 64).count(text)

    return change


def over_budget(rows):
    rows[0]["text"] += " The background is orange." * 12
    rows[0]["tokens"] = TokenBudget("minilm", 64).count(rows[0]["text"])


def other_tokenizer(rows):
    rows[0]["tokens"] -= 3


def stranger(rows):
    rows[0]["image_id"] = "f" * 16


def uncaptioned(rows):
    del rows[:2]


def other_granularity(rows):
    rows[0]["granularity"] = "medium"


def mirrored(rows):
    for row in rows[:6]:
        swap = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
        row["text"] = " ".join(swap.get(word, word) for word in row["text"].replace(",", " ,").split(" "))
        row["text"] = row["text"].replace(" ,", ",")
        row["tokens"] = TokenBudget("minilm", 64).count(row["text"])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("length in tokens", over_budget),
        ("tokens as the encoder counts them", other_tokenizer),
        ("caption is of an image of the cohort", stranger),
        ("every image has a caption", uncaptioned),
        ("granularity in the vocabulary", other_granularity),
        ("text rule laterality", mirrored),
        ("text rule identifier", retold("Fundus photograph taken on 12/03/2019 in the clinic of Dr. Miller.")),
    ],
)
def test_each_fault_of_captions_is_an_error(name, change, captioned, tmp_path):
    captions = write_captions(captioned, tmp_path / "captions", change)
    assert broken(name, captioned, captions) == "error"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("text rule boilerplate", retold("As an AI, I see the retina with the optic disc and the macula.")),
        ("text rule too_short", retold("Fundus photograph.")),
        ("text rule definitive", retold("The patient has a retina that is seen in this picture.")),
        ("wordings of an image differ", retold("Fundus photograph of the retina with the optic disc and the macula.")),
    ],
)
def test_each_oddity_of_captions_is_a_warning(name, change, captioned, tmp_path):
    captions = write_captions(captioned, tmp_path / "captions", change)
    assert broken(name, captioned, captions) == "warning"


def test_captions_that_name_no_eye_are_a_warning(captioned, tmp_path):
    def change(rows):
        for number, row in enumerate(rows):
            row["text"] = (
                f"Fundus photograph of the retina, the {'inner' if number % 2 else 'outer'} layers being clear."
            )
            row["tokens"] = TokenBudget("minilm", 64).count(row["text"])

    captions = write_captions(captioned, tmp_path / "captions", change)
    assert broken("caption names the eye", captioned, captions) == "warning"
    assert broken("share of distinct texts", captioned, captions) == "warning"


def test_only_as_many_captions_as_asked_are_read(captioned, tmp_path):
    captions = write_captions(captioned, tmp_path / "captions")
    meta = {"text_encoder": "minilm", "token_budget": 64, "captions": 80}
    for checked, expected in ((0, 0), (20, 20), (500, 80)):
        file = pq.ParquetFile(captions / "captions.parquet")
        tables = list(captions_tables(Cohort(captioned), file, meta, 1000, checked))
        rows = tables[0][1]
        assert rows["laterality"].notna().sum() == expected
        assert rows["image_known"].all()
    assert "text" not in rows
    assert set(RULES) <= set(rows.columns)


def test_every_expectation_has_a_name_of_its_own():
    for suites in (cohort_suites(params()), captions_suites(params(), 64)):
        names = [expectation.meta["name"] for suite in suites.values() for expectation in suite.expectations]
        assert len(names) == len(set(names))
        assert all(expectation.notes for suite in suites.values() for expectation in suite.expectations)
