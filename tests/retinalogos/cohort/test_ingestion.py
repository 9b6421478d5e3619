import csv
import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from drawn_eye import draw_eye, textured
from PIL import Image

from retinalogos.cohort.ingest import Ingestion, ingest
from retinalogos.cohort.prepare import Prepared, Rejected, prepare
from retinalogos.cohort.readers import Drawing, Layer, Record
from retinalogos.cohort.schema import SCHEMA
from retinalogos.cohort.shards import Cohort, decode_image, decode_map
from retinalogos.errors import DataError, UsageError

HOW = Ingestion(
    size=64,
    jpeg_quality=95,
    fractions={"train": 0.6, "validation": 0.2, "test": 0.2},
    seed=0,
    quarantine_share=0.05,
    near_distance=40,
    key=b"key",
)


def how(**changes: object) -> Ingestion:
    return Ingestion(**({name: getattr(HOW, name) for name in HOW.__dataclass_fields__} | changes))


def jpeg(seed: int, width: int = 96, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(draw_eye(seed, width)).save(buffer, "JPEG", **({"quality": 95} | options))
    return buffer.getvalue()


def records(count: int) -> list[Record]:
    return [
        Record(
            image=jpeg(number),
            source="drawn",
            patient=f"patient-{number // 2}",
            eye=("left", "right")[number % 2],
            age=20.0 + number,
            dr_grade=number % 3 or None,
            findings=("drusen",) if number % 5 == 0 else None,
            labels={"own": number, "note": f"seen 2019-03-{number % 28 + 1:02d}"},
            licence="CC0",
        )
        for number in range(count)
    ]


def quarantined(folder: Path) -> list[dict[str, str]]:
    with (folder / "quarantine.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_rows_have_the_schema_and_keep_both_eyes_together(tmp_path: Path) -> None:
    summary = ingest(records(40), tmp_path / "cohort", "drawn", HOW)
    cohort = Cohort(tmp_path / "cohort")
    assert len(cohort) == summary.rows == 40
    assert pq.read_schema(cohort.shards[0]).names == SCHEMA.names
    rows = list(cohort.rows())
    assert [row["age"] for row in rows] == [20.0 + number for number in range(40)]  # the order of the source
    for left, right in zip(rows[::2], rows[1::2], strict=True):
        assert left["patient_id"] == right["patient_id"]
        assert left["split"] == right["split"]
    assert len({row["patient_id"] for row in rows}) == 20
    assert len({row["image_id"] for row in rows}) == 40
    for row in rows:
        image = decode_image(row["image"]["bytes"])
        assert image.shape == (64, 64, 3)
        assert row["image"]["path"] == f"{row['image_id']}.jpg"
        assert 0 < row["quality"] <= 1
        assert json.loads(row["labels"])["note"] == "seen [date]"
    assert sum(summary.splits.values()) == 40
    assert not (tmp_path / "cohort" / "spool.arrow").exists()


def test_no_identifier_is_written(tmp_path: Path) -> None:
    ingest([*records(30), Record(b"", "drawn", patient="patient-77")], tmp_path / "cohort", "drawn", HOW)
    assert all(b"patient-" not in data for data in content(tmp_path / "cohort").values())


def test_a_file_name_in_quarantine_loses_the_patient(tmp_path: Path) -> None:
    (tmp_path / "4711_left.jpg").write_bytes(b"")
    bad = [Record(tmp_path / "4711_left.jpg", "drawn", patient="4711"), Record(tmp_path / "broken.jpg", "drawn")]
    ingest([*records(40), *bad], tmp_path / "cohort", "drawn", HOW)
    one, two = quarantined(tmp_path / "cohort")
    assert one["reason"] == "empty"
    assert one["file"] == f"{one['patient_id']}_left.jpg"
    assert one["row"] == "41"
    assert two["reason"] == "missing"
    assert two["file"] == "broken.jpg"


@pytest.mark.parametrize(
    ("patient", "file", "kept"),
    [
        ("1", "101_1.jpg", "101_{}.jpg"),
        ("P0012", "P00123-P0012L.jpg", "P00123-{}L.jpg"),
        ("7", "OD7.jpg", "OD{}.jpg"),
        ("Ana", "Banana.jpg", "Banana.jpg"),
    ],
)
def test_only_the_whole_identifier_leaves_a_file_name(tmp_path: Path, patient: str, file: str, kept: str) -> None:
    bad = Record(tmp_path / file, "drawn", patient=patient)
    ingest([*records(40), bad], tmp_path / "cohort", "drawn", HOW)
    (row,) = quarantined(tmp_path / "cohort")
    assert row["file"] == kept.format(row["patient_id"])


def test_metadata_is_removed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x013B] = "Doctor Jane Doe"
    data = jpeg(1, exif=exif, comment=b"Jane Doe, born 1950")
    assert b"Jane Doe" in data
    ingest([Record(data, "drawn")], tmp_path / "cohort", "drawn", HOW)
    stored = next(iter(Cohort(tmp_path / "cohort").rows()))["image"]["bytes"]
    assert b"Jane" not in stored
    assert not Image.open(io.BytesIO(stored)).getexif()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"no image at all", "not an image"),
        (jpeg(1)[:1200], "truncated"),
        (jpeg(1, 8), "too small"),
        (jpeg(1)[:2], "not an image"),
    ],
)
def test_a_bad_file_is_quarantined_and_the_run_goes_on(tmp_path: Path, data: bytes, reason: str) -> None:
    summary = ingest([*records(20), Record(data, "drawn"), *records(40)[20:]], tmp_path / "cohort", "drawn", HOW)
    assert (summary.rows, summary.quarantined) == (40, 1)
    assert [row["reason"] for row in quarantined(tmp_path / "cohort")] == [reason]


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_featureless_picture_is_rejected(level: int) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (100, 100), (level,) * 3).save(buffer, "JPEG")
    result = prepare(Record(buffer.getvalue(), "drawn"), 64, 95)
    assert isinstance(result, Rejected)
    assert result.reason == "featureless"


def test_too_many_bad_files_stop_the_run(tmp_path: Path) -> None:
    bad = [Record(b"", "drawn") for _ in range(3)]
    with pytest.raises(DataError, match=r"3 of 43 files are unusable \(3 empty\).*0\.05.*quarantine\.csv"):
        ingest([*records(40), *bad], tmp_path / "cohort", "drawn", HOW)
    assert len(quarantined(tmp_path / "cohort")) == 3
    assert not (tmp_path / "cohort" / "cohort.json").exists()
    assert not (tmp_path / "cohort" / "spool.arrow").exists()
    assert ingest([*records(40), *bad], tmp_path / "again", "drawn", how(quarantine_share=0.07)).quarantined == 3


def test_an_empty_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the data set has no image"):
        ingest([], tmp_path / "cohort", "drawn", HOW)


def test_the_result_does_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    source = [*records(70), Record(b"", "drawn")]
    one = ingest(source, tmp_path / "one", "drawn", how(workers=1))
    three = ingest(iter(source), tmp_path / "three", "drawn", how(workers=3))
    assert one == three
    assert content(tmp_path / "one") == content(tmp_path / "three")


def test_duplicates_are_grouped_and_on_one_side(tmp_path: Path) -> None:
    buffers = [io.BytesIO(), io.BytesIO()]
    picture = Image.fromarray(textured(3))
    picture.save(buffers[0], "JPEG", quality=95)
    picture.resize((200, 200)).save(buffers[1], "JPEG", quality=90)
    shared, smaller = (buffer.getvalue() for buffer in buffers)
    twins = [
        Record(shared, "drawn", patient="twin-a", eye="left"),
        Record(shared, "drawn", patient="twin-b", eye="right"),
        Record(smaller, "drawn", patient="twin-c"),
    ]
    source = [record for number, record in enumerate(records(60)) if number != 3] + twins
    for seed in range(2):
        summary = ingest(source, tmp_path / str(seed), "drawn", how(seed=seed, near_distance=72))
        rows = list(Cohort(tmp_path / str(seed)).rows(("image_id", "duplicate_group", "split", "patient_id")))
        group = [row for row in rows if row["duplicate_group"]]
        assert summary.duplicates == len(group) == 3
        assert {row["duplicate_group"] for row in group} == {group[0]["image_id"]}
        assert len({row["image_id"] for row in group}) == 3
        assert len({row["split"] for row in group}) == 1


def test_memory_is_bounded_by_a_few_chunks(tmp_path: Path) -> None:
    def stream(count: int) -> Iterator[Record]:
        for number in range(count):
            yield Record(lambda seed=number: Drawing(noisy(seed), {}), "drawn", patient=str(number))

    def noisy(seed: int) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (128, 128, 3), np.uint8)

    peaks = []
    for count in (128, 512):
        tracemalloc.start()
        ingest(stream(count), tmp_path / str(count), "drawn", how(size=128, shard_bytes=1_000_000, near_distance=4))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    cohort = Cohort(tmp_path / "512")
    assert len(cohort) == 512
    assert len(cohort.shards) > 3
    stored = sum(shard.stat().st_size for shard in cohort.shards)
    assert stored > 10_000_000
    # Four times the rows: what grows is the index of some hundred bytes a row, not the pictures.
    assert peaks[1] - peaks[0] < stored / 10


def test_one_picture_many_times_over_is_one_group(tmp_path: Path) -> None:
    same = jpeg(3)
    source = [Record(same, "drawn", patient=str(number)) for number in range(60)]
    summary = ingest(source, tmp_path / "cohort", "drawn", HOW)
    rows = list(Cohort(tmp_path / "cohort").rows(("image_id", "split", "duplicate_group")))
    assert summary.duplicates == len({row["image_id"] for row in rows}) == 60
    assert len({row["split"] for row in rows}) == len({row["duplicate_group"] for row in rows}) == 1


def test_hugging_face_datasets_opens_it_with_pictures(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    ingest(records(6), tmp_path / "cohort", "drawn", how(fractions={"train": 1.0, "validation": 0.0, "test": 0.0}))
    shards = [str(shard) for shard in Cohort(tmp_path / "cohort").shards]
    data = datasets.load_dataset("parquet", data_files=shards, cache_dir=str(tmp_path / "cache"), split="train")
    assert len(data) == 6
    assert isinstance(data[0]["image"], Image.Image)
    assert data[0]["image"].size == (64, 64)
    assert data[0]["lesions"] is None


def test_truth_maps_are_cut_with_the_picture(tmp_path: Path) -> None:
    image = np.pad(draw_eye(2, 200), ((0, 0), (50, 30), (0, 0)))
    disc = (image.min(2) > 130).astype(np.uint8) * 255
    Image.fromarray(image).save(tmp_path / "eye.png")
    Image.fromarray(disc).save(tmp_path / "disc.png")
    record = Record(tmp_path / "eye.png", "drawn", maps={"disc_cup": (Layer(tmp_path / "disc.png", {255: 1}),)})
    result = prepare(record, 64, 95)
    assert isinstance(result, Prepared)
    classes = decode_map(result.row["disc_cup"]["bytes"])
    bright = decode_image(result.row["image"]["bytes"]).min(2) > 110
    assert set(np.unique(classes)) == {0, 1}
    assert (bright & (classes == 1)).sum() / (bright | (classes == 1)).sum() > 0.5


def test_a_drawing_is_stored_as_drawn() -> None:
    eye = draw_eye(2, 64)
    fov = (eye.max(2) > 0).astype(np.uint8) * 255
    result = prepare(Record(lambda: Drawing(eye, {"fov": fov}), "drawn", truth="{}"), 64, 100)
    assert isinstance(result, Prepared)
    assert (decode_map(result.row["fov"]["bytes"]) == fov).all()
    assert np.abs(decode_image(result.row["image"]["bytes"]).astype(int) - eye).mean() < 1.5


def test_ages_above_89_are_one_class() -> None:
    result = prepare(Record(jpeg(1), "drawn", age=97.0), 64, 95)
    assert isinstance(result, Prepared)
    assert result.row["age"] == 90


def test_a_field_that_is_small_in_its_frame_is_decoded_finer() -> None:
    # 1200 pixels across with a field of 150: at the first reduction the field would have 19 pixels.
    image = np.zeros((1200, 1200, 3), np.uint8)
    image[500:700, 500:700] = draw_eye(2, 200)
    # Such a field is 2 % of the frame; the finder needs a tenth, so the frame shrinks to where it is one.
    image = image[350:850, 350:850]
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=0)
    result = prepare(Record(buffer.getvalue(), "drawn"), 128, 95)
    assert isinstance(result, Prepared)
    stored = decode_image(result.row["image"]["bytes"])
    sharp = np.asarray(Image.fromarray(draw_eye(2, 200)[8:192, 8:192]).resize((128, 128), Image.Resampling.LANCZOS))
    assert np.abs(stored.astype(int) - sharp).mean() < 8


def test_fractions_must_be_of_the_splits_and_sum_to_one() -> None:
    with pytest.raises(UsageError, match="sum to 1"):
        how(fractions={"train": 0.5, "validation": 0.2, "test": 0.2})
    with pytest.raises(UsageError, match="train, validation, test"):
        how(fractions={"train": 1.0})
