"""Node pools and the cluster's file: what of them stands in a compiled pipeline, and what is refused."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp import dsl
from kubernetes_schemas import complaints

from components import ROOT, image
from components.runner import check_params, from_kubeflow, load_step
from components.trainjob import manifest
from pipelines import cluster, pools
from pipelines.kubeflow import build, write
from pipelines.params import Choices, compose, presets, validate
from pipelines.placement import Placement
from pipelines.pools import LABEL, PREFLIGHT, Pool, choose
from pipelines.preflight import _HUB_NAME, _MODELS, asked
from pipelines.sections import sections
from pipelines.workflows import PIPELINES, WORKFLOWS, Workflow
from retinalogos.errors import UsageError

FILE: dict[str, Any] = yaml.safe_load((ROOT / "infra" / "pools.yaml").read_text())
SPOT_TOLERATIONS = FILE["pools"]["l4-spot"]["tolerations"]


def compiled(folder: Path, name: str, choices: Choices, placement: Placement) -> tuple[dict, dict]:
    """Specification, and by executor container and pod."""
    documents = yaml.safe_load_all(write(build(PIPELINES[name], choices, placement), folder / "p.yaml").read_text())
    specification, platform = documents
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    executors = {
        label.removeprefix("exec-"): (executor["container"], pods[label])
        for label, executor in specification["deploymentSpec"]["executors"].items()
        if "container" in executor
    }
    return specification, executors


@pytest.fixture(scope="module")
def spot(tmp_path_factory):
    """Trained on spot nodes, captioned on another pool."""
    shared = cluster.read().model_copy(update={"work": cluster.Work(path="/volume", claim="team-work")})
    placement = Placement(shared, choose("laptop", ["train=l4", "train=l4-spot", "encode=l4", "caption=h100x8"]))
    return compiled(tmp_path_factory.mktemp("spot"), "full", Choices(), placement)


def test_a_task_gets_what_its_pool_has(spot) -> None:
    _, executors = spot
    for stage in ("pretrain", "finetune"):
        container, pod = executors[stage]
        resources = container["resources"]
        assert resources["resourceMemoryLimit"] == resources["resourceMemoryRequest"] == "28Gi"
        assert resources["resourceCpuLimit"] == resources["resourceCpuRequest"] == "7"
        assert resources["accelerator"]["resourceType"] == "nvidia.com/gpu"
        assert resources["accelerator"]["resourceCount"] == "1"
        assert pod["nodeSelector"]["labels"] == FILE["pools"]["l4-spot"]["selector"]
        assert pod["tolerations"] == SPOT_TOLERATIONS
        (memory,) = (mount for mount in pod["emptyDirMounts"] if mount["mountPath"] == "/dev/shm")
        assert (memory["medium"], memory["sizeLimit"]) == ("Memory", "8Gi")
        assert pod["podMetadata"]["labels"] == {LABEL: "l4-spot"}
    assert executors["encode"][1]["podMetadata"]["labels"] == {LABEL: "l4"}, "a stage of its own goes over its group"
    for task in ("deal-shards", "caption", "join-captions"):
        assert executors[task][1]["podMetadata"]["labels"] == {LABEL: "h100x8"}
    (preferred,) = executors["caption"][1]["nodeAffinity"]
    assert preferred["weight"] == 1
    assert preferred["matchExpressions"] == [{"key": "topology.kubernetes.io/zone", "operator": "Exists"}]
    for task in ("preflight", "ingest", "report"):
        container, pod = executors[task]
        assert "accelerator" not in container["resources"]
        assert container["resources"]["resourceMemoryLimit"] == "16Gi"
        assert pod["podMetadata"]["labels"] == {LABEL: "cpu"}


def test_every_task_has_limits_and_is_equipped(spot) -> None:
    specification, executors = spot
    assert len(executors) == len([e for e in specification["deploymentSpec"]["executors"].values() if "container" in e])
    for container, pod in executors.values():
        assert container["resources"]["resourceCpuLimit"]
        assert container["resources"]["resourceMemoryLimit"]
        names = [secret["secretName"] for secret in pod["secretAsEnv"]]
        assert names == ["retinalogos-storage", "retinalogos-hub", "retinalogos-captions"]
        assert all(secret["optional"] for secret in pod["secretAsEnv"])
        assert pod["securityContext"] == {"runAsNonRoot": True}


def test_a_spot_pool_tries_again_from_a_volume_that_outlives_the_pod(spot) -> None:
    specification, executors = spot
    tasks = specification["root"]["dag"]["tasks"]
    parameters = specification["root"]["inputDefinitions"]["parameters"]
    for stage in ("pretrain", "finetune"):
        policy = tasks[stage]["retryPolicy"]
        assert policy["maxRetryCount"] == 10
        assert policy["backoffDuration"] == "30s"
        (mount,) = executors[stage][1]["pvcMount"]
        assert (mount["pvcNameParameter"]["runtimeValue"]["constant"], mount["mountPath"]) == ("team-work", "/volume")
        assert parameters[stage]["defaultValue"]["checkpoints"] == "/volume/checkpoints"
    assert parameters["caption"]["defaultValue"]["work"] == "/volume/captions"
    assert "retryPolicy" not in tasks["ingest"]


def test_a_task_takes_the_image_of_its_pool(spot, tmp_path, monkeypatch) -> None:
    """And says so in its pod, where `register` records it."""
    monkeypatch.delenv(image.VARIABLE, raising=False)
    _, executors = spot
    with_accelerator = {"autoencode", "encode", "encode-2", "pretrain", "purify", "finetune"}
    with_accelerator |= {"deal-shards", "caption", "join-captions"}
    for task, (container, _) in executors.items():
        assert container["image"] == image.named()["gpu" if task in with_accelerator else "cpu"], task
        assert {"name": image.VARIABLE, "value": container["image"]} in container["env"]
    choices = Choices(settings=("caption.engine=server",))
    for name in ("full", "caption"):
        _, executors = compiled(tmp_path, name, choices, Placement(cluster.read(), choose("laptop", ["caption=l4"])))
        for task, (container, _) in executors.items():
            by_server = task in ("deal-shards", "caption", "join-captions")
            assert container["image"] == image.named()["client" if by_server else "cpu"], task


def test_one_image_may_be_given_for_all(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(image.VARIABLE, f"example.org/own@sha256:{64 * '3'}")
    _, executors = compiled(tmp_path, "full", Choices(), Placement(cluster.read(), choose("gpu", [])))
    assert {container["image"] for container, _ in executors.values()} == {f"example.org/own@sha256:{64 * '3'}"}


VOLUME = cluster.Work(path="/volume", claim="team-work")
LAUNCHED = ("pretrain.launcher.kind=trainjob", "pretrain.launcher.trainjob.nodes=4")


def test_the_workers_of_a_train_job_get_the_pool_and_the_task_that_waits_does_not(tmp_path) -> None:
    shared = cluster.read().model_copy(update={"work": VOLUME})
    own = "pretrain.launcher.trainjob.pool.memory=900Gi"
    placement = Placement(shared, choose("paper", []))
    specification, executors = compiled(tmp_path, "full", Choices(preset="paper", settings=(*LAUNCHED, own)), placement)
    container, pod = executors["pretrain"]
    assert "accelerator" not in container["resources"]
    assert container["image"].startswith("ghcr.io/retinalogos/retinalogos-cpu@")
    assert pod["podMetadata"]["labels"] == {LABEL: "cpu"}
    assert "nodeSelector" not in pod
    assert executors["finetune"][1]["podMetadata"]["labels"] == {LABEL: "h100x8"}, "it is started where it is"
    parameters = {
        name: from_kubeflow(parameter["defaultValue"])
        for name, parameter in specification["root"]["inputDefinitions"]["parameters"].items()
    }
    section = check_params(load_step("pretrain"), parameters["pretrain"])
    job, wanted = section.launcher.trainjob, FILE["pools"]["h100x8"]
    assert (job.shared, section.checkpoints) == ("/volume", "/volume/checkpoints")
    assert (job.pool.accelerator, job.pool.count, job.pool.cpu) == ("nvidia.com/gpu", 8, "180")
    assert job.pool.memory == "900Gi", "a single setting goes over the pool"
    # What is made of it in the pod is what the cluster is asked for.
    body = manifest("pretrain-1", "team", "pretrain", section.launcher, Path("/volume/call.json"))
    assert complaints(body) == []
    assert body["spec"]["trainer"]["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == "8"
    (node,) = body["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    worker = node["template"]["spec"]["template"]["spec"]
    assert worker["nodeSelector"] == wanted["selector"]
    assert worker["tolerations"] == wanted["tolerations"]
    assert worker["volumes"][0]["emptyDir"]["sizeLimit"] == wanted["shared_memory"]
    (preferred,) = worker["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred["weight"] == wanted["affinity"][0]["weight"]
    # The pre-flight step looks for the runtime, for so many machines, and for the pod that waits.
    assert parameters["preflight"]["runtimes"] == ["retinalogos-torch"]
    needed = {name: need["pods"] for name, need in parameters["preflight"]["pools"].items()}
    assert needed == {"cpu": parameters["caption"]["pods"], "l4": 1, "h100x8": 4}


def test_minimal_hands_the_pool_over_when_it_starts(tmp_path) -> None:
    shared = cluster.read().model_copy(update={"work": VOLUME})
    placement = Placement(shared, choose("laptop", ["train=l4"]))
    specification, executors = compiled(tmp_path, "minimal", Choices(settings=LAUNCHED), placement)
    assert executors["pretrain"][1]["podMetadata"]["labels"] == {LABEL: "cpu"}
    assert executors["finetune"][1]["podMetadata"]["labels"] == {LABEL: "l4"}
    task = specification["root"]["dag"]["tasks"]["compose-parameters"]
    fixed = task["inputs"]["parameters"]["fixed"]["runtimeValue"]["constant"]
    assert set(fixed["workers"]) == {"pretrain", "finetune", "ablate"}
    names = [PREFLIGHT, *(stage.name for stage in PIPELINES["minimal"].stages)]
    made = dict(zip(names, sections("laptop", "", "", 0, " ".join(LAUNCHED), fixed), strict=True))
    assert made["pretrain"]["launcher"]["trainjob"]["pool"]["selector"] == FILE["pools"]["l4"]["selector"]
    assert made["pretrain"]["launcher"]["trainjob"]["shared"] == "/volume"
    assert made["finetune"]["launcher"]["trainjob"]["pool"]["selector"] == {}, "what is not asked is not changed"
    assert made[PREFLIGHT]["pools"]["l4"]["pods"] == 4


def test_a_training_on_a_machine_of_several_accelerators_has_a_process_for_each(tmp_path) -> None:
    def kinds(name: str, pool: str, *settings: str) -> dict[str, str]:
        placement = Placement(cluster.read(), choose("gpu", [f"train={pool}", f"evaluate={pool}"]))
        specification, _ = compiled(tmp_path, name, Choices(preset="gpu", settings=settings), placement)
        if name == "minimal":
            task = specification["root"]["dag"]["tasks"]["compose-parameters"]
            fixed = task["inputs"]["parameters"]["fixed"]["runtimeValue"]["constant"]
            names = [PREFLIGHT, *(stage.name for stage in PIPELINES[name].stages)]
            made = dict(zip(names, sections("gpu", "", "", 0, " ".join(settings), fixed), strict=True))
        else:
            parameters = specification["root"]["inputDefinitions"]["parameters"]
            made = {stage: parameter["defaultValue"] for stage, parameter in parameters.items()}
        return {
            stage: section["launcher"]["kind"]
            for stage, section in made.items()
            if isinstance(section, dict) and "launcher" in section
        }

    for name in ("full", "minimal"):
        # The ablation repeats stage 3 with the batch that its manifest names.
        assert kinds(name, "h100x8") == {"pretrain": "torchrun", "finetune": "torchrun", "ablate": "local"}
        assert set(kinds(name, "l4").values()) == {"local"}
        own = "finetune.launcher.kind=local"
        assert kinds(name, "h100x8", own)["finetune"] == "local", "what is set goes over"
        odd = kinds(name, "h100x8", "finetune.batch_size=12")
        assert (odd["pretrain"], odd["finetune"]) == ("torchrun", "local"), "eight cannot share a batch of 12"
    masks = kinds("vessel_map", "h100x8")
    assert masks
    assert set(masks.values()) == {"torchrun"}


def test_a_train_job_without_a_volume_is_refused(tmp_path) -> None:
    with pytest.raises(UsageError, match=r"pretrain.launcher.kind: trainjob needs a volume .* work.claim"):
        compiled(tmp_path, "train", Choices(settings=LAUNCHED), Placement(cluster.read(), choose("laptop", [])))


def test_affinity_that_is_required_is_one_term() -> None:
    both = [{"key": "zone", "operator": "In", "values": ["a", "b"]}, {"key": "fast", "operator": "Exists"}]

    @dsl.component(base_image="none")
    def work() -> None:
        pass

    @dsl.pipeline
    def one() -> None:
        task = work()
        pools.place(task, "x", Pool(cpu="1", memory="1Gi", affinity=[*both, {**both[0], "weight": 5}]))

    specification = json_format.MessageToDict(one.platform_spec)
    pod = specification["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-work"]
    required, preferred = pod["nodeAffinity"]
    assert [term["key"] for term in required["matchExpressions"]] == ["zone", "fast"]
    assert preferred["weight"] == 5


def test_a_group_takes_stages_by_the_beginning_of_their_names(tmp_path: Path) -> None:
    groups = {"encoding": ["encode*", "nothing_*"], "one": ["report"]}
    (tmp_path / "pools.yaml").write_text(yaml.safe_dump(FILE | {"groups": groups, "presets": {}}))
    chosen = choose("laptop", ["encoding=l4"], tmp_path / "pools.yaml")
    assert {stage for stage, (name, _) in chosen.items() if name == "l4"} == {
        name for name in chosen if name.startswith("encode")
    }


@pytest.mark.parametrize("workflow", WORKFLOWS.values(), ids=lambda workflow: workflow.name)
def test_every_stage_that_keeps_checkpoints_is_in_a_group(workflow: Workflow) -> None:
    """So that `--pool train=…` reaches it, and its checkpoints lie on the volume that outlives the pod."""
    values = compose(Choices(workflow=workflow.name))
    chosen = choose("laptop", ["train=l4", "evaluate=l4"])
    training = [stage.name for stage in workflow.stages if "checkpoints" in values[stage.name]]
    assert {chosen[name][0] for name in training} <= {"l4"}
    found = cluster.read()
    settings = found.settings(values)
    assert {f"{name}.checkpoints={found.work.path}/checkpoints" for name in training} <= set(settings)
    validate(compose(Choices(workflow=workflow.name, settings=settings)), workflow.name)


SHIPPED = [(workflow, preset) for workflow in WORKFLOWS.values() for preset in presets(workflow.name)]


@pytest.mark.parametrize(("workflow", "preset"), SHIPPED, ids=lambda value: getattr(value, "name", value))
def test_what_names_a_model_of_the_hub_is_known_to_the_pre_flight_step(workflow: Workflow, preset: str) -> None:
    """Else add it to `_MODELS` of pipelines/preflight.py."""

    def named(value: Any, path: tuple[str, ...] = ()):
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from named(inner, (*path, key))
        for word in value if isinstance(value, list) else [value]:
            name = ".".join(path)
            # A folder of a run, a resource of Kubernetes, a model of a server.
            other = str(word).startswith("run/") or name.endswith((".accelerator", "server.model"))
            if isinstance(word, str) and _HUB_NAME.fullmatch(word) and not other:
                yield name

    values = compose(Choices(workflow=workflow.name, preset=preset))
    known = {(step, parameter) for step, parameter, _ in _MODELS}
    found = {(stage.step, parameter) for stage in workflow.stages for parameter in named(values[stage.name])}
    assert found <= known


@pytest.mark.parametrize("workflow", WORKFLOWS.values(), ids=lambda workflow: workflow.name)
def test_a_model_of_the_hub_in_any_stage_is_asked_for(workflow: Workflow) -> None:
    """Wherever a parameter takes a network by name, also one that no preset gives a name of the hub."""
    kinds = ("backbone", "feature_spaces", "text_encoder", "perceptual_network", "perceptual.network")
    values = compose(Choices(workflow=workflow.name))

    def name_them(section: dict[str, Any], stage: str, path: str = "") -> list[str]:
        named = []
        for key, value in section.items():
            where = f"{path}.{key}"
            if where.endswith(tuple(f".{kind}" for kind in kinds)) and not isinstance(value, dict):
                name = f"{stage}/{where.removeprefix('.')}"
                section[key] = [name] if isinstance(value, list) else name
                named.append(name)
            elif isinstance(value, dict):
                named += name_them(value, stage, where)
        return named

    stages = {stage.name: values[stage.name] for stage in workflow.stages}
    named = [name for stage, section in stages.items() for name in name_them(section, stage)]
    assert set(named) <= set(asked(workflow.stages, values, cluster.read(), {})["models"])
    assert named


def test_the_pools_of_clouds_in_the_documentation_are_pools(tmp_path: Path) -> None:
    """Spot pools of accelerators, with the labels of the table beside them."""
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    (block,) = re.findall(r"^    pools:\n(?:^     .*\n)+", text, re.MULTILINE)
    written = yaml.safe_load(block)["pools"]
    (tmp_path / "pools.yaml").write_text(yaml.safe_dump(FILE | {"pools": FILE["pools"] | written}))
    found = pools.read(tmp_path / "pools.yaml").pools
    assert [name.partition("-")[0] for name in written] == ["gke", "eks", "aks"]
    for name in written:
        pool = found[name]
        assert pool.accelerator == "nvidia.com/gpu"
        assert pool.spot
        assert pool.from_zero
        (row,) = (line for line in text.splitlines() if line.startswith(f"| {name[:3].upper()} |"))
        assert [key for key in pool.selector if key not in row] == []
        assert [one.key for one in pool.tolerations if one.key != "nvidia.com/gpu" and one.key not in row] == []


def test_the_defaults_of_presets() -> None:
    assert {name for name, _ in choose("laptop", []).values()} == {"cpu"}
    paper = choose("paper", [])
    assert (paper["pretrain"][0], paper["encode"][0], paper["ingest"][0]) == ("h100x8", "l4", "cpu")
    assert choose("paper", ["pretrain=l4-spot"])["pretrain"][0] == "l4-spot"


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("train=h200", "no pool is called 'h200'; infra/pools.yaml has cpu, l4, l4-spot, h100x8"),
        (
            "trian=l4",
            "no stage or group is called 'trian'; groups are caption, train, evaluate, stages preflight, ingest",
        ),
        ("l4", "should be stage=pool"),
    ],
)
def test_an_unknown_pool_or_stage_is_named(chosen: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        choose("laptop", [chosen])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"pools": {"cpu": {"cpu": "4", "memory": "1Gi", "gpus": 1}}},
            "pools.cpu has no field 'gpus'; it has accelerator",
        ),
        ({"pools": {"cpu": {"cpu": "4", "memory": "lots"}}}, "pools.cpu.memory: "),
        ({"pools": {"cpu": {"cpu": "4", "memory": "1Gi", "count": 1}}}, "pools.cpu: accelerator and count go together"),
        ({"pools": {"cpu": {"cpu": "4"}}}, "pools.cpu.memory: Field required"),
        ({"default": "big"}, "no pool is called 'big'"),
        ({"presets": {"gpu": {"train": "big"}}}, "no pool is called 'big'"),
        ({"groups": {"train": ["pretrian"]}}, "group train: no stage is called 'pretrian'"),
        ({"zones": []}, "the file has no field 'zones'"),
    ],
)
def test_a_wrong_file_is_refused_with_the_field(tmp_path: Path, change: dict, message: str) -> None:
    (tmp_path / "pools.yaml").write_text(yaml.safe_dump(FILE | change))
    with pytest.raises(UsageError, match=message) as error:
        choose("laptop", [], tmp_path / "pools.yaml")
    assert "\n" not in str(error.value)


def test_a_wrong_cluster_file_is_refused_with_the_field(tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "infra" / "cluster.yaml").read_text())
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(values | {"storge": "s3://x", "tracking": 3}))
    with pytest.raises(UsageError, match=r"tracking: .*storge: "):
        cluster.read(tmp_path / "cluster.yaml")


def preflight(name: str, preset: str, *settings: str, **changes: Any) -> dict[str, Any]:
    values = compose(Choices(preset=preset, settings=settings))
    stages = PIPELINES[name].stages
    held = cluster.read().model_copy(update=changes)
    return asked(stages, values, held, Placement(held, choose(preset, [])).needs(stages, values))


def test_what_the_pre_flight_step_asks_follows_from_the_parameters() -> None:
    laptop = preflight("full", "laptop")
    assert (laptop["secrets"], laptop["storage"], laptop["tracking"], laptop["models"]) == ([], [], None, [])
    assert {name: need["pods"] for name, need in laptop["pools"].items()} == {"cpu": 4}
    assert preflight("full", "laptop", pools_checked=False)["pools"] == {}
    paper = preflight("full", "paper", "encode.shards_at=s3://latents/a", tracking="http://mlflow:5000")
    generator = ["Alpha-VLLM/Lumina-Next-SFT-diffusers", "google/gemma-2b", "stabilityai/sdxl-vae"]
    assert paper["models"] == sorted([*generator, compose(Choices(preset="paper"))["classify"]["grader"]["backbone"]])
    assert paper["secrets"] == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"]
    assert (paper["storage"], paper["tracking"]) == (["s3://latents/a"], "http://mlflow:5000")
    assert set(paper["pools"]) == {"cpu", "l4", "h100x8"}
    assert paper["pools"]["h100x8"]["count"] == 8
    clip = ("purify.agreement=clip", "purify.clip.model=a/flair", "purify.clip.loader=flair")
    assert preflight("train", "laptop", *clip)["models"] == ["a/flair", "emilyalsentzer/Bio_ClinicalBERT"]
    model = preflight("caption", "laptop", "caption.engine=transformers", "caption.transformers.model=a/b")
    assert model["models"] == ["a/b"]
    remote = ("caption.engine=server", "caption.server.allow_remote=true")
    assert preflight("caption", "laptop", *remote)["secrets"] == ["RETINALOGOS_CAPTION_KEY"]
    assert preflight("evaluate", "laptop", *remote)["secrets"] == []
    judged = ("purify.judge.engine=server", "purify.judge.server.allow_remote=true")
    assert preflight("train", "laptop", *judged)["secrets"] == ["RETINALOGOS_CAPTION_KEY"]
    assert preflight("full", "laptop", "register.weights_at=s3://models/a")["storage"] == ["s3://models/a"]
    assert preflight("full", "laptop", storage="s3://team/x")["storage"] == ["s3://team/x"]


def test_on_this_machine_nothing_is_asked() -> None:
    found = asked(PIPELINES["full"].stages, compose(Choices(preset="paper")), None, {})
    assert not any(found[name] for name in ("secrets", "storage", "tracking", "models", "pools"))
