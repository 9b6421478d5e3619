"""What Kubeflow's pages show of a step: single files, while outputs of steps are folders."""

import json
import shutil
from pathlib import Path
from typing import Any


def show_file(folder: Any, name: str, shown: Any) -> None:
    """A file of an output as an artifact of its own.

    Args:
        folder: artifact of the output.
        name: of the file in it, a page without links to others beside it.
        shown: artifact that shows it.
    """
    shutil.copyfile(Path(folder.path) / name, shown.path)


def show_verdict(validation: Any, shown: Any) -> None:
    """The verdict of ``validate`` as a table in Markdown: what did not hold first.

    Args:
        validation: artifact of its output.
        shown: artifact that shows it.
    """
    verdict = json.loads((Path(validation.path) / "verdict.json").read_text(encoding="utf-8"))
    lines = [verdict["says"], "", "| | expected | seen |", "|---|---|---|"]
    for finding in sorted(verdict["findings"], key=lambda finding: bool(finding["passed"])):
        words = ("holds" if finding["passed"] else finding["severity"], finding["name"], str(finding["observed"]))
        lines.append(f"| {' | '.join(' '.join(word.replace('|', '/').split()) for word in words)} |")
    Path(shown.path).write_text("\n".join(lines) + "\n", encoding="utf-8")
