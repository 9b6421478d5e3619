import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from study_at_hand import write_cohort

from retinalogos.errors import DataError, UsageError
from retinalogos.reader_study import design
from retinalogos.reader_study.design import BLOCK, Picture, Study, open_study, picture_path, prepare, reader_key


def drawn(images: int, repeats: int, seed: int = 0) -> Study:
    """A study without a folder."""
    facts = {"image_id": "", "source": "", "generator": None, "dr_grade": None, "glaucoma": None}
    pictures = [Picture(name=f"{index:012x}", kind=design.KINDS[index % 2], **facts) for index in range(2 * images)]
    return Study(seed=seed, size=32, repeats=repeats, matched=True, pictures=tuple(pictures))


@given(st.data(), st.integers(3, 60), st.integers(0, 2**32), st.text("abcdef", min_size=1, max_size=8))
def test_orders_are_balanced_and_repeats_are_far_from_the_first_sight(data, images, seed, reader):
    repeats = data.draw(st.integers(0, images // 3))
    study = drawn(images, repeats, seed)
    kind = {picture.name: picture.kind for picture in study.pictures}
    order = study.order(reader)
    first = [trial.picture for trial in order if not trial.repeat]
    assert sorted(first) == sorted(kind), "each picture once"
    for start in range(0, len(first), BLOCK):
        block = Counter(kind[name] for name in first[start : start + BLOCK])
        assert block["real"] == block["synthetic"]
    again = [trial.picture for trial in order if trial.repeat]
    assert Counter(kind[name] for name in again) == Counter({"real": repeats, "synthetic": repeats})
    assert len(set(again)) == len(again)
    at = {name: place for place, trial in enumerate(order) for name in [trial.picture] if not trial.repeat}
    for place, trial in enumerate(order):
        if trial.repeat:
            assert place - at[trial.picture] >= 2 * images // 3 - BLOCK
            assert place > at[trial.picture]
    assert study.order(reader) == order


def test_readers_get_orders_of_their_own_and_neither_kind_comes_first_more_often():
    study = drawn(30, 3)
    orders = {reader: study.order(reader) for reader in map(str, range(200))}
    assert len({tuple(order) for order in orders.values()}) == 200
    kind = {picture.name: picture.kind for picture in study.pictures}
    first = sum(kind[order[0].picture] == "real" for order in orders.values())
    assert 70 < first < 130  # of 200, at chance: 4 standard deviations
    assert drawn(30, 3, seed=1).order("0") != orders["0"]


def chunks(data: bytes) -> list[bytes]:
    """Kinds of the chunks of a PNG."""
    found, at = [], 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        found.append(data[at + 4 : at + 8])
        at += 12 + length
    return found


def test_files_tell_nothing_of_the_kind_nor_of_a_patient(study, folder):
    files = {picture.name: picture_path(folder, picture.name).read_bytes() for picture in study.pictures}
    assert len({len(data) for data in files.values()}) == 1, "all have the same number of bytes"
    for data in files.values():
        assert set(chunks(data)) == {b"IHDR", b"IDAT", b"IEND"}, "pixels and nothing else"
    assert {Image.open(picture_path(folder, name)).size for name in files} == {(40, 40)}, "the smaller of the two"
    assert len({Image.open(picture_path(folder, name)).mode for name in files}) == 1
    everything = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    for secret in (b"patient-", b"SecretCamera", b"SecretComment", b"Exif"):
        assert secret not in everything
    # In the order of their names the kinds come as by lot.
    kinds = [picture.kind for picture in study.pictures]
    assert [picture.name for picture in study.pictures] == sorted(files)
    assert kinds not in (sorted(kinds), sorted(kinds, reverse=True))
    assert folder.stat().st_mode & 0o077 == 0, "nobody else may look into the folder"


def test_pictures_come_from_the_test_split_one_a_patient_in_the_same_mix(cohorts, study, folder, tmp_path):
    real = [picture for picture in study.pictures if picture.kind == "real"]
    assert all(int(picture.image_id[1:]) % 10 != 9 for picture in real), "none was trained on"
    mix = [Counter(p.dr_grade for p in study.pictures if p.kind == kind) for kind in design.KINDS]
    assert mix[0] == mix[1]
    # The pixels are those of the cohort, brought to the size of the smaller.
    synthetic = next(picture for picture in study.pictures if picture.kind == "synthetic")
    expected = dict(design.Cohort(cohorts["synthetic"]).images())[synthetic.image_id]
    assert np.array_equal(np.asarray(Image.open(picture_path(folder, synthetic.name))), expected)
    twins = write_cohort(tmp_path / "twins", "real", 20, 48, per_patient=5)
    with pytest.raises(UsageError, match="only 4 pictures of each kind, one a patient"):
        prepare(twins, cohorts["synthetic"], tmp_path / "s", images=6, repeats=0, seed=0, matched=False)
    assert not (tmp_path / "s").exists()


def test_the_same_seed_draws_the_same_study(cohorts, study, tmp_path):
    def again(seed: int) -> Study:
        return prepare(cohorts["real"], cohorts["synthetic"], tmp_path / str(seed), images=6, repeats=2, seed=seed)

    assert again(3) == study
    assert again(4).identity != study.identity
    assert open_study(tmp_path / "3") == study


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"images": 300}, UsageError, "lower --images"),
        ({"repeats": 3}, UsageError, "at most a third of --images, here 2"),
        ({"size": 41}, UsageError, "--size 41: the smallest picture has 40 pixels"),
        ({"real": "synthetic"}, DataError, "--real .*is synthetic"),
        ({"synthetic": "real"}, DataError, "--synthetic .*is a photograph"),
        ({"real": "nowhere"}, UsageError, "cohort.json"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(cohorts, folder, change, error, says):
    asked = {"images": 6, "repeats": 2, "seed": 0, "real": "real", "synthetic": "synthetic"} | change
    places = {kind: cohorts.get(asked.pop(kind), folder / "nowhere") for kind in design.KINDS}
    with pytest.raises(error, match=says):
        prepare(places["real"], places["synthetic"], folder, **asked)
    assert not folder.exists()


def test_another_mix_of_disease_needs_to_be_allowed(cohorts, tmp_path):
    healthy = write_cohort(tmp_path / "healthy", "synthetic", 40, 40, grades=(0,))
    ask = {"images": 24, "repeats": 0, "seed": 0}
    with pytest.raises(
        UsageError, match=r"of the same grade and glaucoma status in both cohorts are there.*--unmatched"
    ):
        prepare(cohorts["real"], healthy, tmp_path / "study", **ask)
    assert prepare(cohorts["real"], healthy, tmp_path / "study", **ask, matched=False).matched is False


def test_a_folder_that_is_in_use_is_not_touched(cohorts, study, folder):
    before = (folder / "study.json").read_bytes()
    with pytest.raises(UsageError, match="there already"):
        prepare(cohorts["real"], cohorts["synthetic"], folder, images=6, repeats=0, seed=0)
    assert (folder / "study.json").read_bytes() == before


def test_a_folder_without_a_whole_study_is_refused(study, folder, tmp_path):
    with pytest.raises(UsageError, match=r"reader-study prepare"):
        open_study(tmp_path)
    name = study.pictures[0].name
    picture_path(folder, name).unlink()
    with pytest.raises(DataError, match=f"{name}.png is missing"):
        open_study(folder)
    text = (folder / "study.json").read_text()
    (folder / "study.json").write_text(re.sub('"real"', '"unreal"', text, count=1))
    with pytest.raises(DataError, match=r"study.json is damaged: pictures\.\d+\.kind"):
        open_study(folder)
    (folder / "study.json").write_text(text[:100])
    with pytest.raises(DataError, match=r"study.json is damaged"):
        open_study(folder)


def test_names_of_readers():
    assert design.reader_name("  Ana\u0301  M. ") == "Aná M."
    assert reader_key("ANNA") == reader_key("anna ")
    assert reader_key("anna") != reader_key("anne")
    for name in ("", "   ", "../etc", "=1+1", "<b>", "a" * 41, "a\nb\x00", "-x"):
        with pytest.raises(UsageError, match="1 to 40 letters"):
            design.reader_name(name)
