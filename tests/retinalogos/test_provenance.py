import json

import pytest

from retinalogos.errors import DataError
from retinalogos.provenance import append_records


def test_records_of_several_generators_share_an_index_and_the_last_of_a_file_counts(tmp_path):
    index = tmp_path / "index.jsonl"
    append_records(index, [{"file": "a.png", "seed": 1}, {"file": "cube.npz", "steps": 3}])
    append_records(index, [{"file": "a.png", "seed": 2}])
    assert [json.loads(line) for line in index.read_text().splitlines()] == [
        {"file": "a.png", "seed": 2},
        {"file": "cube.npz", "steps": 3},
    ]


@pytest.mark.parametrize("line", ['{"seed": 1}', "no JSON", "[1]"])
def test_an_index_that_is_none_is_named_and_kept(tmp_path, line):
    index = tmp_path / "index.jsonl"
    index.write_text(f'{{"file": "a.png"}}\n{line}\n')
    with pytest.raises(DataError, match=r"index.jsonl, line 2, is no record of a picture"):
        append_records(index, [{"file": "b.png"}])
    assert index.read_text() == f'{{"file": "a.png"}}\n{line}\n'
