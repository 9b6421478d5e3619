"""Which code a step runs: the dependencies on code in dvc.yaml."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from components import ROOT

LIBRARY = "retinalogos"
# What they say and show changes no result.
WITHOUT_EFFECT = {ROOT / LIBRARY / "errors.py", ROOT / LIBRARY / "progress.py"}


def code_of(step: str) -> list[str]:
    """The step's folder and every module of the library that it imports, also indirectly; relative to the repository.

    Imports inside functions count; ``import_module(f"package.{name}")`` counts as all modules of the package. Files
    beside a module that are no Python (tables, templates) count with it.
    """
    folder = ROOT / "components" / step
    found: set[Path] = set()
    todo = [file for file in folder.glob("*.py") if file.name != "component.py"]
    while todo:
        file = todo.pop()
        for module in _imports(file):
            if module not in found | WITHOUT_EFFECT:
                found.add(module)
                todo.append(module)
    data = {path for module in found for path in module.parent.iterdir() if path.is_file() and path.suffix not in _CODE}
    return [f"components/{step}", *sorted(path.relative_to(ROOT).as_posix() for path in found | data)]


_CODE = (".py", ".md", ".pyc", ".typed")


@cache  # most steps import the same modules
def _imports(file: Path) -> tuple[Path, ...]:
    return tuple(_imported(file))


def _imported(file: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from _module(node.module)
            for alias in node.names:
                yield from _module(f"{node.module}.{alias.name}")
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "import_module":
            yield from _imported_by_name(node.args[0])


def _imported_by_name(name: ast.expr) -> Iterator[Path]:
    if isinstance(name, ast.Constant):
        yield from _module(str(name.value))
    elif isinstance(name, ast.JoinedStr) and isinstance(name.values[0], ast.Constant):
        package = ROOT / Path(*str(name.values[0].value).rstrip(".").split("."))
        if package.is_relative_to(ROOT / LIBRARY):
            yield from package.glob("*.py")


def _module(name: str) -> Iterator[Path]:
    if name.split(".")[0] != LIBRARY or name == LIBRARY:
        return
    path = ROOT / Path(*name.split("."))
    # An empty __init__.py holds no code, and DVC warns of empty dependencies.
    files = (path.with_suffix(".py"), path / "__init__.py")
    yield from (file for file in files if file.is_file() and file.stat().st_size)
