"""Freed memory is kept by the process, and only then."""

import subprocess
import sys

import pytest

from retinalogos import memory

# Pages that a step of four blocks of 8 MiB maps anew, once it has run before.
STEP = """
import resource
from retinalogos.memory import keep_freed_memory
{setting}
def step():
    blocks = [bytearray(8 * 2**20) for _ in range(4)]
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(setting: str) -> int:
    words = [sys.executable, "-c", STEP.format(setting=setting)]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def test_a_step_maps_no_page_anew() -> None:
    if not memory.keep_freed_memory():
        pytest.skip("the C library is not glibc")
    assert pages("assert keep_freed_memory()") < 200
    assert pages("") > 2000, "without it each step pays for its pages again"


def test_another_c_library_is_left_as_it_is(monkeypatch) -> None:
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    assert not memory.keep_freed_memory()
