import os

import pytest
import torch
from object_store import object_store

from retinalogos.errors import DataError, UsageError
from retinalogos.generators.text.latents import Latents, LatentWriter
from retinalogos.generators.text.shards import BucketShards

PLACE = "s3://bucket/some/prefix"
SMALL = {"images_per_shard": 7, "tokens_per_shard": 16}


@pytest.fixture
def store(monkeypatch):
    # The store takes bodies as they are, not in signed chunks.
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "test")
    with object_store() as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        yield running


def write(folder, place, images=20, seed=0, **sizes):
    draw = torch.Generator().manual_seed(seed)
    with LatentWriter(folder, {"empty_text": 0, "channels": 4, "latent_size": 8}, place, **sizes) as writer:
        for i in range(images):
            number = writer.add_text(str(i), torch.randn(1 + i % 5, 6, generator=draw))
            latents = torch.randn(4, 8, 8, generator=draw)
            writer.add_image(str(i), "train", None, latents, [number], [number], latents[:2, :3, :3])
    return Latents(folder)


def test_a_bucket_gives_what_a_folder_does(tmp_path, store):
    here, there = write(tmp_path / "here", None, **SMALL), write(tmp_path / "there", PLACE, **SMALL)
    order = [19, 0, 7, 6, 13]
    assert torch.equal(here.latents(order), there.latents(order))
    assert torch.equal(here.representations(order), there.representations(order))
    assert torch.equal(here.representations(order), here.latents(order)[:, :2, :3, :3])
    assert all(map(torch.equal, here.tokens(order), there.tokens(order)))
    assert all(map(torch.equal, here.batch_tokens(order), there.batch_tokens(order)))
    assert not list((tmp_path / "there").glob("*.safetensors"))
    assert len(list((tmp_path / "here").glob("*.safetensors"))) == len(store.objects) > 6
    assert all(path.startswith("/bucket/some/prefix/") for path in store.objects)


def test_only_the_rows_asked_for_are_sent(tmp_path, store):
    read = write(tmp_path, PLACE, images=200)
    read.latents([0])
    store.asked.clear()
    read.latents([17, 150])
    row = 2 * 4 * 8 * 8
    assert [size for _, _, size in store.asked] == [row, row]


def test_what_is_there_is_not_sent_again_and_other_shards_stay(tmp_path, store):
    first = write(tmp_path / "a", PLACE)
    store.asked.clear()
    write(tmp_path / "b", PLACE)
    assert {method for method, _, _ in store.asked} == {"HEAD"}
    kept = dict(store.objects)
    write(tmp_path / "c", PLACE, seed=1)
    assert kept.items() < store.objects.items()
    assert (tmp_path / "a" / "latents.json").read_bytes() == (tmp_path / "b" / "latents.json").read_bytes()
    assert first.latents([3]).isfinite().all()


def test_a_busy_store_is_asked_again(tmp_path, store):
    read = write(tmp_path, PLACE)
    store.busy = 3
    assert read.latents([1]).shape == (1, 4, 8, 8)


def test_what_is_missing_or_no_shard_is_named(tmp_path, store):
    read = write(tmp_path, PLACE)
    name = read.meta["objects"]["latents"][0]
    store.objects[f"/bucket/some/prefix/{name}"] = b"not a shard of ours" * 100
    with pytest.raises(DataError, match=f"{PLACE}/{name} is no shard"):
        read.latents([0])
    store.objects.clear()
    with pytest.raises(DataError, match=rf"{PLACE}/{name}.*AWS_ENDPOINT_URL"):
        Latents(tmp_path).latents([0])


@pytest.mark.parametrize("place", ["bucket/prefix", "s3://", "gs://bucket"])
def test_an_address_of_another_kind_is_refused(place):
    with pytest.raises(UsageError, match="expected s3://bucket/prefix"):
        BucketShards(place)


@pytest.mark.skipif("RETINALOGOS_TEST_S3" not in os.environ, reason="RETINALOGOS_TEST_S3 names no s3://bucket/prefix")
def test_a_real_store_gives_what_a_folder_does(tmp_path):
    here = write(tmp_path / "here", None, **SMALL)
    there = write(tmp_path / "there", os.environ["RETINALOGOS_TEST_S3"], **SMALL)
    assert torch.equal(here.latents(range(20)), there.latents(range(20)))
    assert all(map(torch.equal, here.tokens(range(20)), there.tokens(range(20))))
