"""Three floors; an import never goes up."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(
    path.relative_to(ROOT)
    for floor in ("retinalogos", "components", "pipelines")
    for path in (ROOT / floor).rglob("*.py")
)


def imports(path: Path, lazy: bool = True) -> Iterator[str]:
    """Top-level packages that a file imports; ``lazy``: inside functions too."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    for node in ast.walk(tree) if lazy else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def forbidden(path: Path) -> set[str]:
    if path.parts[0] == "retinalogos":
        return {"kfp", "dvc", "great_expectations", "mlflow", "components", "pipelines"}
    if path.parts[0] == "pipelines":
        return {"torch", "diffusers", "transformers", "mlflow", "great_expectations"}
    return {"pipelines", "dvc"} if path.name == "component.py" else {"pipelines", "dvc", "kfp"}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_import_goes_up(path: Path) -> None:
    assert forbidden(path) & set(imports(path)) == set()


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.name in ("step.py", "runner.py", "tracking.py")], ids=str
)
def test_heavy_services_are_imported_lazily(path: Path) -> None:
    """mlflow and great_expectations take seconds to import; whoever looks at parameters alone should not wait."""
    assert {"mlflow", "great_expectations"} & set(imports(path, lazy=False)) == set()


def test_there_are_files_on_every_floor() -> None:
    assert {path.parts[0] for path in FILES} == {"retinalogos", "components", "pipelines"}
