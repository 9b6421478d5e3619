"""What changed between two compiled pipelines, and which steps run again for it."""

import contextlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from components import image
from pipelines.__main__ import main
from pipelines.cluster import read
from pipelines.compiled import Compiled, changes, runs_again
from pipelines.kubeflow import build, write
from pipelines.params import Choices
from pipelines.placement import Placement
from pipelines.pools import choose
from pipelines.workflows import PIPELINES
from retinalogos.errors import UsageError


def compiled(path: Path, *settings: str, name: str = "evaluate", pool: str = "l4") -> Path:
    placement = Placement(read(), choose("laptop", [f"evaluate={pool}"]))
    return write(build(PIPELINES[name], Choices(settings=settings), placement), path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return compiled(tmp_path_factory.mktemp("plain") / "evaluate.yaml")


def test_nothing_changed(plain: Path, tmp_path: Path) -> None:
    again = compiled(tmp_path / "again.yaml")
    assert list(changes(Compiled(plain), Compiled(again))) == ["runs again: preflight"]


@pytest.mark.parametrize(
    ("name", "setting", "line", "again"),
    [
        ("evaluate", "classify.runs=3", "classify.runs: 2.0 → 3.0", {"classify"}),
        ("evaluate", "augment.per_grade=9", "augment.per_grade: 24.0 → 9.0", {"augment", "assess", "classify"}),
        (
            "caption",
            "caption.seed=5",
            "caption.seed: 0.0 → 5.0",
            {"deal-shards", "for-loop-1/caption", "join-captions", "validate-2"},
        ),
    ],
)
def test_a_changed_parameter_runs_its_stage_and_what_depends_on_it(tmp_path, name, setting, line, again) -> None:
    old, new = (
        Compiled(compiled(tmp_path / "a.yaml", name=name)),
        Compiled(compiled(tmp_path / "b.yaml", setting, name=name)),
    )
    parameter, last = changes(old, new)
    assert parameter == f"parameter {line}"
    assert set(last.removeprefix("runs again: ").split(", ")) == set(runs_again(old, new)) == again | {"preflight"}


def test_a_changed_argument_counts_as_the_parameter(plain: Path) -> None:
    section = Compiled(plain).parameters["classify"] | {"runs": 3.0}
    assert set(runs_again(Compiled(plain), Compiled(plain, {"classify": section}))) == {"preflight", "classify"}
    moved = Compiled(plain, {"generator": "s3://b/other"})
    assert {"augment", "assess", "classify"} <= set(runs_again(Compiled(plain), moved))


def test_another_image_runs_everything(plain: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.yaml"
    new.write_text(plain.read_text().replace("@sha256:" + "0" * 64, "@sha256:" + "1" * 64))
    old, found = Compiled(plain), Compiled(new)
    assert [name for name in found.tasks if name not in runs_again(old, found)] == ["importer", "importer-2"]
    line = f"step assess: image {old.tasks['assess'].image} → {found.tasks['assess'].image}"
    assert line in list(changes(old, found))


def test_another_pool_runs_nothing(plain: Path, tmp_path: Path) -> None:
    lines = list(changes(Compiled(plain), Compiled(compiled(tmp_path / "new.yaml", pool="l4-spot"))))
    assert "step augment: pod podMetadata.labels.retinalogos.io/pool: l4 → l4-spot" in lines
    assert any(line.startswith("step augment: retries None → ") for line in lines)
    assert not [line for line in lines if line.startswith("step preflight")]
    # Which pools the pre-flight step looks at is a parameter.
    assert any(line.startswith("parameter preflight.pools.l4-spot") for line in lines)
    assert lines[-1] == "runs again: preflight"


def test_a_pool_with_an_accelerator_is_another_image_and_runs_again(plain: Path, tmp_path: Path) -> None:
    old, new = Compiled(plain), Compiled(compiled(tmp_path / "new.yaml", pool="cpu"))
    assert set(runs_again(old, new)) == {"preflight", "augment", "assess", "classify"}
    assert (old.tasks["assess"].image, new.tasks["assess"].image) == (image.image("gpu"), image.image("cpu"))


def test_steps_and_edges(plain: Path, tmp_path: Path) -> None:
    def edited(name: str, edit: Callable[[dict[str, Any]], Any]) -> Compiled:
        specification, platform = yaml.safe_load_all(plain.read_text())
        edit(specification["root"]["dag"]["tasks"])
        (tmp_path / name).write_text(yaml.safe_dump_all([specification, platform]))
        return Compiled(tmp_path / name)

    def rewire(tasks: dict[str, Any]) -> None:
        tasks["classify"]["inputs"]["artifacts"]["cohort"] = tasks["classify"]["inputs"]["artifacts"]["synthetic"]

    old = Compiled(plain)
    lines = list(changes(old, edited("rewired.yaml", rewire)))
    assert lines == [
        "step classify: input cohort: importer.artifact → augment.synthetic",
        "runs again: preflight, classify",
    ]
    less = edited("less.yaml", lambda tasks: tasks.pop("classify"))
    assert list(changes(old, less)) == ["step classify: removed", "runs again: preflight"]
    added, last = changes(less, old)
    assert added == "step classify: added"
    assert set(last.removeprefix("runs again: ").split(", ")) == {"preflight", "classify"}


def test_the_command(plain: Path, tmp_path: Path, capsys) -> None:
    assert main(["diff", str(plain), str(compiled(tmp_path / "new.yaml", "classify.runs=3"))]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "parameter classify.runs: 2.0 → 3.0"
    (tmp_path / "none.yaml").write_text("a: 1")
    assert main(["diff", str(plain), str(tmp_path / "none.yaml")]) == 2
    with pytest.raises(UsageError, match="no compiled pipeline"):
        Compiled(tmp_path)


def test_export_is_what_submit_sends_or_objects_of_kubernetes(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("RETINALOGOS_IMAGE", "")
    words = ["export", "caption", "--pool", "caption=l4", "--set", "caption.pods=3"]
    assert main([*words, "--out", str(tmp_path / "a.yaml")]) == 0
    assert main([*words, "--out", str(tmp_path / "a.txt")]) == 2
    assert Compiled(tmp_path / "a.yaml").parameters["caption"]["pods"] == 3
    assert main([*words, "--out", str(tmp_path / "b.yaml"), "--manifest", "team"]) == 0
    pipeline, version = yaml.safe_load_all((tmp_path / "b.yaml").read_text())
    assert (pipeline["kind"], pipeline["metadata"]["namespace"]) == ("Pipeline", "team")
    assert (version["kind"], version["metadata"]["namespace"]) == ("PipelineVersion", "team")
    assert version["spec"]["pipelineName"] == pipeline["metadata"]["name"] == "retinalogos-caption"
    assert version["spec"]["pipelineSpec"] == next(yaml.safe_load_all((tmp_path / "a.yaml").read_text()))


def test_objects_of_kubernetes_are_named_by_what_is_in_them(tmp_path: Path, monkeypatch) -> None:
    """A version that is there cannot be changed, so another content must be another version."""
    monkeypatch.setenv("RETINALOGOS_IMAGE", "")

    def names(*words: str) -> list[str]:
        path = tmp_path / "objects.yaml"
        assert main(["export", "lesion_map", "--out", str(path), "--manifest", "team", *words]) == 0
        return [each["metadata"]["name"] for each in yaml.safe_load_all(path.read_text())]

    pipeline, version = names()
    assert names() == [pipeline, version]
    other = names("--set", "ingest.seed=5")
    assert other[0] == pipeline
    assert other[1] != version
    for name in (pipeline, version, other[1]):
        assert re.fullmatch(r"retinalogos-lesion-map(-[0-9a-f]{10})?", name)


@pytest.fixture(scope="module")
def every_pipeline(tmp_path_factory) -> tuple[Path, str]:
    """What `compile` writes for a preset that all workflows have, and what it says."""
    folder, said = tmp_path_factory.mktemp("every") / "ir", io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.delenv(image.VARIABLE, raising=False)
        assert main(["compile", "--out", str(folder), "--preset", "smoke"]) == 0
    return folder, said.getvalue()


def test_compile_writes_every_pipeline(every_pipeline) -> None:
    folder, said = every_pipeline
    written = [folder / f"{name}.yaml" for name in PIPELINES]
    assert sorted(folder.iterdir()) == sorted(written)
    assert said.split() == [str(path) for path in written]


def test_a_preset_that_no_workflow_has_is_refused(tmp_path: Path, capsys) -> None:
    assert main(["compile", "--out", str(tmp_path / "ir"), "--preset", "huge"]) == 2
    assert "no preset is called 'huge'" in capsys.readouterr().err
    assert not (tmp_path / "ir").exists()


@pytest.mark.parametrize("name", PIPELINES)
def test_every_compiled_pipeline_is_what_kubeflow_reads(every_pipeline, name: str) -> None:
    """The protocol buffers that the server parses it with refuse fields that they do not know."""
    pipeline, platform = yaml.safe_load_all((every_pipeline[0] / f"{name}.yaml").read_text())
    read = json_format.ParseDict(pipeline, pipeline_spec_pb2.PipelineSpec())
    assert len(read.root.dag.tasks) > len(PIPELINES[name].stages)
    pods = json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    executors = pods.platforms["kubernetes"].deployment_spec.executors
    assert set(executors) == {
        label for label, one in pipeline["deploymentSpec"]["executors"].items() if "container" in one
    }
    for config in executors.values():
        executor = json_format.MessageToDict(config)
        json_format.ParseDict(executor, kubernetes_executor_config_pb2.KubernetesExecutorConfig())


@pytest.mark.parametrize("name", PIPELINES)
def test_every_pod_of_a_compiled_pipeline_keeps_the_policy(every_pipeline, name: str) -> None:
    """What `manifest_policy.py` asks of manifests, as far as a pipeline says it: image, limits, no root, secrets."""
    pipeline, platform = yaml.safe_load_all((every_pipeline[0] / f"{name}.yaml").read_text())
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for label, pod in pods.items():
        container = pipeline["deploymentSpec"]["executors"][label]["container"]
        assert re.fullmatch(r"[\w./:-]+@sha256:[0-9a-f]{64}", container["image"]), label
        resources = container["resources"]
        for kind in ("Cpu", "Memory"):
            assert resources[f"resource{kind}Request"] == resources[f"resource{kind}Limit"], label
        assert pod["securityContext"]["runAsNonRoot"], label
        named = {variable["name"] for variable in container["env"]}
        assert not [variable for variable in named if re.search("PASSWORD|TOKEN|SECRET|KEY", variable)], label
