"""Engines answer every request; captions folders are written as a stream and read back."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retinalogos.captions.engine import CaptionEngine, CaptionRequest, TemplateEngine
from retinalogos.captions.table import SCHEMA, CaptionWriter, read_captions, read_captions_meta
from retinalogos.captions.template import PROMPT_VERSION
from retinalogos.errors import DataError, UsageError


def requests(n, bad=()):
    for i in range(n):
        record = {"image_id": f"{i:016x}", "eye": "left", "dr_grade": 9 if i in bad else i % 5}
        yield CaptionRequest(record["image_id"], record, "fine", 0, seed=3)


def results(budget, n=7, **options):
    return list(TemplateEngine(budget, batch=3).caption(requests(n, **options)))


def test_one_result_for_every_request_in_order(budget):
    written = results(budget)
    assert [result.image_id for result in written] == [f"{i:016x}" for i in range(7)]
    assert all(result.error is None and result.text for result in written)
    assert {(result.engine, result.prompt_version, result.seed) for result in written} == {
        ("template", PROMPT_VERSION, 3)
    }


def test_an_unfit_record_is_an_error_and_its_batch_is_written(budget):
    written = results(budget, bad={4})
    assert [i for i, result in enumerate(written) if result.error] == [4]
    assert "dr_grade" in written[4].error
    assert written[4].text == ""
    assert all(result.text for i, result in enumerate(written) if i != 4)


def test_requests_are_drawn_batch_by_batch(budget):
    drawn = []

    def counting():
        for request in requests(9):
            drawn.append(request)
            yield request

    stream = TemplateEngine(budget, batch=3).caption(counting())
    next(stream)
    assert len(drawn) == 3


def test_the_protocol_fits_an_engine_that_looks_at_the_image():
    class Reader:
        name, prompt_version = "reader", "1"

        def caption(self, requests):
            for request in requests:
                yield request.image()

    engine: CaptionEngine = Reader()
    request = CaptionRequest("a", {}, "fine", 0, 0, image=lambda: b"jpeg")
    assert list(engine.caption([request])) == [b"jpeg"]


def write(folder, budget, drop=False):
    with CaptionWriter(folder, budget.budget, budget.source) as writer:
        for result in results(budget):
            writer.add(vars(result))
        if drop:
            writer.drop("00", "fine", 0, "too_short", "2 words, 5 are needed")
    return folder


def test_captions_are_read_as_they_were_written(tmp_path, budget):
    folder = write(tmp_path / "captions", budget)
    table = read_captions(folder)
    assert table.schema.equals(SCHEMA)
    assert table["text"].to_pylist() == [result.text for result in results(budget)]
    assert read_captions(folder, ["text"]).column_names == ["text"]
    meta = read_captions_meta(folder)
    assert (meta["captions"], meta["images"], meta["dropped"]) == (7, 7, 0)
    assert (meta["token_budget"], meta["text_encoder"]) == (64, "minilm")
    assert meta["max_tokens"] == max(table["tokens"].to_pylist())
    assert not (folder / "dropped.csv").exists()


def test_dropped_captions_are_listed_with_their_reason(tmp_path, budget):
    folder = write(tmp_path / "captions", budget, drop=True)
    lines = (folder / "dropped.csv").read_text().splitlines()
    assert lines == ["image_id,wording,granularity,rule,detail", '00,0,fine,too_short,"2 words, 5 are needed"']
    assert read_captions_meta(folder)["dropped"] == 1


def test_the_same_captions_are_the_same_bytes(tmp_path, budget):
    one, other = write(tmp_path / "one", budget), write(tmp_path / "other", budget)
    for name in ("captions.parquet", "captions.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_a_wording_is_written_once(tmp_path, budget):
    row = vars(results(budget)[0])
    writer = CaptionWriter(tmp_path / "c", 64, "minilm")
    with pytest.raises(DataError, match="captioned twice"), writer:
        writer.add_table(pa.Table.from_pylist([row, row], schema=SCHEMA))


def test_an_unfinished_folder_is_refused(tmp_path, budget):
    def cut_short():
        with CaptionWriter(tmp_path / "c", 64, "minilm") as writer:
            writer.add(vars(results(budget)[0]))
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power"):
        cut_short()
    assert pq.read_metadata(tmp_path / "c" / "captions.parquet").num_rows == 0
    with pytest.raises(UsageError, match=r"no captions\.json"):
        read_captions(tmp_path / "c")


def test_a_folder_without_captions_is_refused(tmp_path):
    with pytest.raises(DataError, match="no caption was written"), CaptionWriter(tmp_path / "c", 64, "minilm"):
        pass


def test_many_captions_are_written_in_groups(tmp_path, budget):
    row = vars(results(budget)[0])
    with CaptionWriter(tmp_path / "c", 64, "minilm") as writer:
        for i in range(20000):
            writer.add({**row, "image_id": f"{i:016x}"})
    assert pq.ParquetFile(tmp_path / "c" / "captions.parquet").num_row_groups == 3
    assert json.loads((tmp_path / "c" / "captions.json").read_text())["captions"] == 20000
