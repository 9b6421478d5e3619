import os
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from study_at_hand import answer_of, read, scores

from retinalogos.errors import DataError, UsageError
from retinalogos.reader_study import answers
from retinalogos.reader_study.answers import only_writer, read_books, start_book


def says_real(picture, repeat):
    return "real", scores(1, lesions=None)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 2500))
def test_a_file_cut_anywhere_keeps_every_whole_answer_and_goes_on(study, folder, cut):
    for path in (folder / "answers").iterdir():
        path.unlink()
    book = read(folder, study, "anna", says_real)
    whole = book.path.read_bytes()
    book.path.write_bytes(whole[:cut])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        books = read_books(folder, study)
    lines = whole[:cut].count(b"\n")
    if lines == 0:  # not even who reads: the reader begins, nobody was told that anything was kept
        assert books == []
        again = start_book(folder, study, "anna", "other")
    else:
        (again,) = books
        assert again.answers == book.answers[: lines - 1]
    for _ in range(len(again.answers), len(again.order)):
        again.add(answer_of(again, *says_real(None, False)))
    assert book.path.read_bytes() == whole


def test_a_cut_is_said(study, folder):
    book = read(folder, study, "anna", says_real, most=2)
    book.path.write_bytes(book.path.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="half a line at its end is passed over"):
        (again,) = read_books(folder, study)
    assert len(again.answers) == 1


@pytest.mark.parametrize(
    ("line", "change", "says"),
    [
        (1, (b'"other"', b'"king"'), "line 1 is damaged: role"),
        (1, (b'"study":"', b'"study":"0'), "belongs to another study|holds answers to another study"),
        (3, (b'"judged":"real"', b'"judged":"perhaps"'), "line 3 is damaged: judged"),
        (3, (b'"disc":1', b'"disc":4'), r"line 3 is damaged: ratings\.disc"),
        (3, (b'"overall":1', b'"overall":null'), r"line 3 is damaged: ratings\.overall"),
        (3, (b'"seconds":5.0', b'"seconds":-1'), "line 3 is damaged: seconds"),
        (3, (b'"trial":1', b'"trial":2'), "line 3 answers another picture than was asked"),
        (4, (b'"picture":"', b'"picture":"0'), "line 4 answers another picture than was asked"),
        (4, (b"{", b""), "line 4 is damaged"),
    ],
)
def test_damage_is_named_and_nothing_is_guessed(study, folder, line, change, says):
    path = read(folder, study, "anna", says_real).path
    lines = path.read_bytes().splitlines(keepends=True)
    assert change[0] in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(*change, 1)
    path.write_bytes(b"".join(lines))
    with pytest.raises(DataError, match=says) as error:
        read_books(folder, study)
    assert str(path) in str(error.value)


def test_more_answers_than_were_asked_for_are_damage(study, folder):
    path = read(folder, study, "anna", says_real).path
    last = path.read_bytes().splitlines(keepends=True)[-1]
    path.write_bytes(path.read_bytes() + last.replace(b'"trial":15', b'"trial":16'))
    with pytest.raises(DataError, match="line 18 answers another picture"):
        read_books(folder, study)


@pytest.mark.parametrize("fault", ["write", "sync"])
def test_a_full_disk_loses_no_earlier_answer_and_the_next_try_succeeds(study, folder, monkeypatch, fault):
    book = read(folder, study, "anna", says_real, most=3)
    before = book.path.read_bytes()
    write, sync = os.pwrite, os.fsync

    def half(file, data, at):
        if at > len(before):
            raise OSError(28, "No space left on device")
        return write(file, data[:20], at)

    def fails(file):
        raise OSError(5, "Input/output error")

    answer = answer_of(book, *says_real(None, False))
    monkeypatch.setattr(answers.os, "pwrite" if fault == "write" else "fsync", half if fault == "write" else fails)
    with pytest.raises(OSError):
        book.add(answer)
    monkeypatch.setattr(answers.os, "pwrite", write)
    monkeypatch.setattr(answers.os, "fsync", sync)
    assert book.path.read_bytes() == before
    assert len(book.answers) == 3
    book.add(answer)
    (again,) = read_books(folder, study)
    assert again.answers[3] == answer


def test_every_answer_is_synced_before_it_counts(study, folder, monkeypatch):
    book = start_book(folder, study, "anna", "other")
    synced = []
    monkeypatch.setattr(answers.os, "fsync", lambda file: synced.append((os.fstat(file).st_size, len(book.answers))))
    for count in range(3):
        book.add(answer_of(book, *says_real(None, False)))
        assert synced[count] == (book.path.stat().st_size, count), "the whole line, before it is counted"


def test_a_file_that_someone_else_writes_is_not_overwritten(study, folder):
    book = read(folder, study, "anna", says_real, most=3)
    (other,) = read_books(folder, study)
    book.add(answer_of(book, *says_real(None, False)))
    kept = book.path.read_bytes()
    with pytest.raises(DataError, match="changed by someone else"):
        other.add(answer_of(other, "synthetic", scores(3)))
    with pytest.raises(DataError, match="changed by someone else"):
        start_book(folder, study, "Anna", "other")
    assert book.path.read_bytes() == kept


def test_only_the_next_trial_can_be_answered(study, folder):
    book = read(folder, study, "anna", says_real, most=3)
    with pytest.raises(ValueError, match="trial 1 is not the next"):
        book.add(book.answers[1])


def test_one_server_at_a_time(study, folder):
    with only_writer(folder), pytest.raises(UsageError, match="served by another process"), only_writer(folder):
        pass
    with only_writer(folder):
        pass


def test_a_role_that_is_none_is_refused(study, folder):
    with pytest.raises(UsageError, match="role must be one of"):
        start_book(folder, study, "anna", "king")
    assert not list((folder / "answers").iterdir())
