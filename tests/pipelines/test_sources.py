"""Which code a step runs."""

from pathlib import Path

import pytest

from pipelines import sources


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path, text in {
        "components/draw/step.py": "from retinalogos.pen import line\n\n\ndef run():\n"
        "    import retinalogos.paper\n    import retinalogos.empty\n",
        "components/draw/component.py": "import retinalogos.never\n",
        "retinalogos/pen.py": "from retinalogos.inks import mix\nfrom retinalogos.errors import UsageError\n",
        "retinalogos/empty/__init__.py": "",
        "retinalogos/paper.py": "import numpy\n",
        "retinalogos/never.py": "",
        "retinalogos/errors.py": "",
        "retinalogos/inks/__init__.py": "def mix(name):\n    return import_module(f'retinalogos.inks.{name}')\n",
        "retinalogos/inks/blue.py": "SHADE = 1\n",
        "retinalogos/inks/table.csv": "a,b\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    monkeypatch.setattr(sources, "WITHOUT_EFFECT", {tmp_path / "retinalogos" / "errors.py"})
    return tmp_path


def test_direct_lazy_and_named_imports_count(tree: Path) -> None:
    assert sources.code_of("draw") == [
        "components/draw",
        "retinalogos/inks/__init__.py",
        "retinalogos/inks/blue.py",
        "retinalogos/inks/table.csv",
        "retinalogos/paper.py",
        "retinalogos/pen.py",
    ]


def test_the_code_of_ingest_holds_every_reader() -> None:
    from retinalogos.cohort.readers import READERS

    code = sources.code_of("ingest")
    assert {f"retinalogos/cohort/readers/{reader}.py" for reader in READERS} <= set(code)
    assert not [path for path in code if "generators" in path]
