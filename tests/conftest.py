"""Fixtures shared by all tests: where the real data is, and the promise that no test uses the network."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("OMP_NUM_THREADS", "2")
# Tests that look at what MLflow is told switch it on, with a store of their own.
os.environ.setdefault("RETINALOGOS_TRACKING", "off")

# A busy machine is no failure.
settings.register_profile("any_machine", deadline=None)
settings.load_profile("any_machine")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with the real data sets; tests that need it are skipped, with the reason, where it is not."""
    folder = Path(os.environ.get("RETINALOGOS_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data sets not found at {folder} (set RETINALOGOS_DATA)")
    return folder


@pytest.fixture
def no_processes(monkeypatch):
    """Benchmarks run their ways in this process: a new one imports torch for seconds each time."""
    from benchmarks import paired

    class Here:
        def __init__(self, make, name, options):
            self.way = make(name, options)

        def seconds(self):
            return paired.seconds(self.way)

        def memory(self):
            return paired.Memory(300.0, 100.0)

        def close(self):
            pass

    monkeypatch.setattr(paired, "Process", Here)
    return Here
