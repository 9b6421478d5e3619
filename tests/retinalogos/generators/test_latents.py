import os
import re
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retinalogos.errors import UsageError
from retinalogos.generators.text import latents as module
from retinalogos.generators.text.latents import Latents, LatentWriter, epoch_order, mirrored_words


@pytest.mark.parametrize(("images", "tokens"), [(3, 5), (1536, 65536)])
def test_what_is_written_is_read_whatever_the_shards(tmp_path, images, tokens):
    rows = [torch.randn(2, 4, 4).half().float() for _ in range(8)]
    texts = [torch.randn(n, 3).half().float() for n in (2, 4, 1)]
    with LatentWriter(tmp_path, {"empty_text": 0}, None, images, tokens) as writer:
        numbers = [writer.add_text(str(len(text)), text) for text in texts]
        for i, row in enumerate(rows):
            writer.add_image(str(i), "train", None, row, [numbers[i % 3]], [], row[:, :2, :2] + i)
    read = Latents(tmp_path)
    torch.testing.assert_close(
        read.representations([5, 1]),
        torch.stack([rows[5][:, :2, :2] + 5, rows[1][:, :2, :2] + 1]),
        rtol=1e-3,
        atol=1e-2,
    )
    for i, row in enumerate(rows):
        torch.testing.assert_close(read.latents([i])[0], row)
        (caption,) = read.captions(i, "fine")  # there is no fine one: the coarse stands in
        torch.testing.assert_close(read.tokens([caption])[0], texts[i % 3])
    torch.testing.assert_close(read.latents([7, 0, 3]), torch.stack([rows[7], rows[0], rows[3]]))
    padded, mask = read.batch_tokens([0, 1, 2])
    assert padded.shape == (3, 4, 3)
    assert mask.sum(1).tolist() == [2, 4, 1]
    assert float(padded[2, 1:].abs().max()) == 0


def test_after_reading_no_shard_stays_mapped_or_open(tmp_path):
    with LatentWriter(tmp_path, {}, images_per_shard=1) as writer:
        writer.add_text("one", torch.randn(2, 3))
        for i in range(50):
            writer.add_image(str(i), "train", None, torch.randn(2, 4, 4), [0], [0])
    read = Latents(tmp_path)
    kept = [read.latents(range(50)), *read.tokens([0])]
    shards = re.compile(rf"{re.escape(str(tmp_path))}\S+\.safetensors")
    assert len(list(tmp_path.glob("*.safetensors"))) > 50
    assert not [fd for fd in Path("/proc/self/fd").iterdir() if shards.search(os.path.realpath(fd))]
    assert not shards.search(Path("/proc/self/maps").read_text())
    assert all(bool(rows.isfinite().all()) for rows in kept)


@given(st.lists(st.sampled_from(["train", "validation"]), min_size=1, max_size=20), st.integers(1, 7))
def test_rows_are_the_same_by_number_and_in_passing(splits, at_once):
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(module, "_ROWS_AT_ONCE", at_once):
        written = [{"split": split, "numbers": [i]} for i, split in enumerate(splits)]
        pq.write_table(pa.Table.from_pylist(written), Path(folder) / "rows.parquet")
        rows = module.Rows(Path(folder) / "rows.parquet")
        assert list(rows) == [rows[i] for i in range(len(rows))] == written
        assert rows.where("split", "train") == [i for i, split in enumerate(splits) if split == "train"]
        for outside in (-1, len(splits)):
            with pytest.raises(IndexError):
                rows[outside]


def test_an_unfinished_folder_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"latents\.json"):
        Latents(tmp_path)
    with pytest.raises(UsageError, match="nothing to encode"), LatentWriter(tmp_path, {}):
        pass


@given(st.lists(st.sampled_from(["left", "right", "Left", "OD", "OS", "leftover", "bright", ",", "optic"])))
def test_mirroring_twice_changes_nothing(words):
    text = " ".join(words)
    assert mirrored_words(mirrored_words(text)) == text


def test_mirroring_exchanges_sides_and_nothing_else():
    assert mirrored_words("Left eye (OS), disc on the left; bright.") == "Right eye (OD), disc on the right; bright."


@given(st.integers(1, 50), st.integers(0, 5), st.integers(0, 5))
def test_every_epoch_is_a_permutation_of_its_own(n, seed, epoch):
    order = epoch_order(np.arange(n), seed, epoch)
    assert sorted(order) == list(range(n))
    np.testing.assert_array_equal(order, epoch_order(np.arange(n), seed, epoch))
