"""`python -m pipelines submit` against a local server that answers as Kubeflow Pipelines does."""

import pytest
from kubeflow_server import kubeflow_server, looks, task

from pipelines import submit
from pipelines.__main__ import main

IMAGE = f"example.org/retinalogos@sha256:{'1' * 64}"
EVALUATE = ("evaluate", "--in", "cohort=s3://b/cohort", "--in", "generator=s3://b/generator")


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setattr(submit, "_PAUSE", 0.01)
    monkeypatch.setattr(submit.follow, "__defaults__", (0.01,))
    monkeypatch.setenv("RETINALOGOS_IMAGE", "")
    monkeypatch.delenv("KFP_TOKEN", raising=False)


def call(server, *words: str) -> int:
    return main(["submit", *words, "--host", server.url, "--image", IMAGE])


def test_a_run_is_started_and_its_link_printed(capsys) -> None:
    with kubeflow_server([looks("RUNNING")], experiment=False) as server:
        words = ["--in", "cohort=s3://b/cohort", "--set", "caption.pods=2", "--pool", "caption=l4", "--name", "mine"]
        assert call(server, "caption", *words) == 0
    assert capsys.readouterr().out.splitlines() == [f"{server.url}/#/runs/details/run-1"]
    (run,) = server.runs
    assert (run["display_name"], run["experiment_id"]) == ("mine", "exp-1")
    assert run["runtime_config"]["parameters"] == {"cohort": "s3://b/cohort"}
    specification = run["pipeline_spec"]["pipeline_spec"]
    assert specification["root"]["inputDefinitions"]["parameters"]["caption"]["defaultValue"]["pods"] == 2
    pods = run["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert pods["exec-caption"]["podMetadata"]["labels"] == {"retinalogos.io/pool": "l4"}


def test_a_run_is_followed_to_its_end(capsys, monkeypatch) -> None:
    monkeypatch.setenv("KFP_TOKEN", "secret-token")
    driver, own = task("augment-driver", "SUCCEEDED"), task("executor", "RUNNING")
    states = [
        {"run_id": "run-1"},  # not begun yet
        looks("RUNNING", driver, own, task("augment", "RUNNING"), task("assess", None)),
        503,
        looks("RUNNING", driver, own, task("augment", "SUCCEEDED"), task("assess", "RUNNING")),
        looks("SUCCEEDED", driver, own, task("augment", "SUCCEEDED"), task("assess", "SUCCEEDED")),
    ]
    with kubeflow_server(states) as server:
        assert call(server, *EVALUATE, "--wait") == 0
    out = capsys.readouterr().out
    assert "secret-token" not in out
    assert set(server.tokens) == {"Bearer secret-token"}
    link, *said, end = out.splitlines()
    assert link == f"{server.url}/#/runs/details/run-1"
    assert [line.split(maxsplit=1)[1] for line in said] == [
        "0 done  augment running",
        "1 done  augment succeeded",
        "1 done  assess running",
        "2 done  assess succeeded",
    ]
    assert end == f"run succeeded  {link}"


def test_who_stops_to_follow_is_told_that_the_run_goes_on(capsys, monkeypatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(submit.time, "sleep", stopped)
    with kubeflow_server([looks("RUNNING", task("augment", "RUNNING"))]) as server:
        assert call(server, *EVALUATE, "--wait") == 130
    said = capsys.readouterr()
    assert f"the run goes on: {server.url}/#/runs/details/run-1" in said.err
    assert "augment running" in said.out


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_run_that_fails_ends_with_1_and_the_reason(state, capsys) -> None:
    states = [looks(state, task("augment", "FAILED", "exit code 1"), error="task augment failed")]
    with kubeflow_server(states) as server:
        assert call(server, *EVALUATE, "--wait") == 1
    out = capsys.readouterr().out
    assert "augment failed: exit code 1" in out
    assert f"run {state.lower()}: task augment failed" in out


def test_a_server_that_refuses_is_quoted_in_one_line(capsys) -> None:
    with kubeflow_server([], refuses="unknown pipeline root") as server:
        assert call(server, *EVALUATE) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "refuses the run: unknown pipeline root" in line


def test_a_run_that_cannot_be_seen_any_more(capsys) -> None:
    with kubeflow_server([404]) as server:
        assert call(server, *EVALUATE, "--wait") == 2
    assert "cannot be followed any more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*EVALUATE, "--host", "http://127.0.0.1:9"], "no Kubeflow Pipelines at http://127.0.0.1:9"),
        (
            ["train", "--host", "x", "--in", "cohort=a"],
            "pipeline train takes --in cohort=ADDRESS --in captions=ADDRESS",
        ),
        (["full", "--host", "x", "--in", "cohort=a"], "pipeline full takes no --in"),
        (["full", "--host", "x", "--pool", "train=huge"], "no pool is called 'huge'"),
        (["full", "--host", "x", "--image", "retinalogos:latest"], "is not named by digest"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(words, message, capsys) -> None:
    assert main(["submit", "--image", IMAGE, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_an_image_that_was_never_published_is_not_sent(capsys) -> None:
    assert main(["submit", "full", "--host", "x"]) == 2
    assert "names no published image" in capsys.readouterr().err
