"""The commands in the documentation are ones that exist, and its links lead somewhere."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import components.__main__
import pipelines.__main__
from components import cli
from components.runner import load_step, step_names
from pipelines.graph import MAIN
from pipelines.params import Choices, compose, validate
from retinalogos.errors import UsageError

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "components").rglob("*.md"))]
PARSERS = {
    "python -m components": components.__main__._parser,
    "python -m pipelines": pipelines.__main__._parser,
    "retinalogos": cli.parser,
}


def commands(path: Path) -> Iterator[str]:
    """Commands that stand as indented or fenced lines or between backticks, without comments."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    spans = re.findall(r"`([^`\n]+)`", text)
    lines = [line.strip() for line in text.splitlines()]
    for words in [*spans, *lines]:
        command = re.sub(r"\s+#.*$", "", words).removeprefix("$ ").replace(".venv/bin/", "")
        if re.match(rf"(make|{'|'.join(PARSERS)}) [a-z-]", command) and "…" not in command:
            yield command


# Variables of make that choose parameters; those of data sets that are not here cannot be tried.
SETTINGS = {"WORKFLOW", "PRESET", "COHORT", "SET"}
FOUND = sorted(
    {(document.relative_to(ROOT).as_posix(), command) for document in DOCUMENTS for command in commands(document)}
)


def test_the_readme_has_commands_of_each_kind() -> None:
    ours = [command for document, command in FOUND if document == "README.md"]
    for start in ("make run", "make test", "make smoke", "make help", *PARSERS):
        assert [command for command in ours if command.startswith(start)], start


@pytest.mark.parametrize(("document", "command"), [pair for pair in FOUND if pair[1].startswith("make ")])
def test_make_targets_variables_and_settings_exist(document: str, command: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE))
    variables = set(re.findall(r"^([A-Z]+) *\?=", makefile, re.MULTILINE))
    words = [word.partition("=") for word in shlex.split(command)[1:]]
    for name, equals, _ in words:
        assert name in (variables if equals else targets), f"{document}: {command}"
    values = {name: value for name, equals, value in words if equals}
    if SETTINGS & values.keys() and Path(values.get("DATA", ROOT)).is_dir():
        workflow = values.get("WORKFLOW", MAIN)
        choices = Choices(
            workflow=workflow,
            preset=values.get("PRESET", "laptop"),
            cohort=values.get("COHORT"),
            data=values.get("DATA"),
            settings=tuple(shlex.split(values.get("SET", ""))),
        )
        validate(compose(choices), workflow)


@pytest.mark.parametrize(("document", "command"), [pair for pair in FOUND if not pair[1].startswith("make ")])
def test_commands_parse(document: str, command: str, capsys: pytest.CaptureFixture) -> None:
    start = next(start for start in PARSERS if command.startswith(start))
    words = shlex.split(command.removeprefix(start))
    if words and words[-1].isupper():  # `schema STEP`: a command in general, with a word for its argument
        words = [word if not word.isupper() else "caption" for word in words]
    try:
        options = PARSERS[start]().parse_args(words)
    except (SystemExit, UsageError) as error:
        pytest.fail(f"{document}: {command}: {error} {capsys.readouterr().err}")
    if getattr(options, "step", None):
        assert options.step in step_names(), f"{document}: {command}"
    if start == "python -m components" and options.command == "run":
        step = load_step(options.step)
        assert {port for port, _ in options.inputs} <= step.inputs.keys()
        assert {port for port, _ in options.outputs} <= {*step.outputs, "metrics"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    missing = [
        target
        for target in targets
        if not target.startswith(("http://", "https://", "mailto:")) and not (document.parent / target).exists()
    ]
    assert missing == []


def test_make_help_explains_every_target_and_variable() -> None:
    makefile = (ROOT / "Makefile").read_text()
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split()
    for target in targets:
        assert re.search(rf"^  make {target} +\w", said, re.MULTILINE), target
    for variable in re.findall(r"^([A-Z]+) *\?=", makefile, re.MULTILINE):
        assert re.search(rf"^  {variable} +\w", said, re.MULTILINE), variable
