"""What Kubeflow's pages show beside the outputs."""

import json

from kfp import dsl

from components.shown import show_file, show_verdict


def test_a_page_is_shown_as_a_file(tmp_path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").write_text("<html>eyes</html>")
    shown = dsl.HTML(uri=str(tmp_path / "shown"))
    show_file(dsl.Artifact(uri=str(tmp_path / "report")), "index.html", shown)
    assert (tmp_path / "shown").read_text() == "<html>eyes</html>"


def test_a_verdict_is_a_table_with_what_failed_first(tmp_path) -> None:
    findings = [
        {"suite": "a", "name": "a good one", "severity": "error", "passed": True, "observed": "0 of 3", "why": "."},
        {"suite": "a", "name": "a | bar", "severity": "warning", "passed": False, "observed": "2\nlines", "why": "."},
    ]
    verdict = {"passed": True, "says": "1 of 2 expectations hold", "findings": findings}
    (tmp_path / "verdict.json").write_text(json.dumps(verdict))
    show_verdict(dsl.Artifact(uri=str(tmp_path)), dsl.Markdown(uri=str(tmp_path / "shown.md")))
    says, empty, *table = (tmp_path / "shown.md").read_text().splitlines()
    assert (says, empty) == ("1 of 2 expectations hold", "")
    assert table[2:] == ["| warning | a / bar | 2 lines |", "| holds | a good one | 0 of 3 |"]
