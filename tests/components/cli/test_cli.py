import subprocess
import sys

import pytest

from components import cli


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["generate"], "required"),
        (["generate", "left eye"], "--out"),
        (["generate", "left eye", "--out", "o", "--n", "0"], "less than 1"),
        (["generate", "left eye", "--out", "o", "--seed", "x"], "not a whole number"),
        (["generate", "left eye", "--out", "o", "--guidance", "nan"], "finite"),
        (["generate", "left eye", "--out", "o", "--model", "nowhere"], "model_index.json"),
        (["generate", "left eye", "--out", "o"], "make run"),
        (["generate", "  ", "--out", "o"], "empty"),
        (["paint"], "paint"),
        (["inspect", "nowhere"], "cohort.json"),
    ],
)
def test_wrong_use_is_answered_with_one_line_and_code_two(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert cli.main(arguments) == 2
    answer = capsys.readouterr().err
    assert says in answer
    assert answer.count("\n") == 1
    assert not list(tmp_path.iterdir()), "a refused call leaves nothing behind"


def test_ctrl_c_is_one_line_and_code_130(monkeypatch, capsys):
    def stop(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr("components.cli.pictures.resolve_model", stop)
    assert cli.main(["generate", "left eye", "--out", "o"]) == 130
    assert capsys.readouterr().err == "retinalogos: stopped; the same command can be started again\n"


def test_help_starts_without_torch():
    code = "import sys; from components.cli import main\ntry: main(['generate', '--help'])\nfinally: assert 'torch' not in sys.modules and 'mlflow' not in sys.modules"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "not for diagnosis" in done.stdout
    assert "examples:" in done.stdout
