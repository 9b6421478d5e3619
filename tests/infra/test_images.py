"""The images: what goes into them, how they are named, and, where an engine can be had, a real one that runs steps."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from components import ROOT, image
from retinalogos.errors import UsageError

DOCKERFILE = (ROOT / "infra" / "docker" / "Dockerfile").read_text()
DIGEST = "sha256:" + 64 * "a"


def names(file: str) -> set[str]:
    return set((ROOT / "infra" / "docker" / file).read_text().split())


def locked() -> set[str]:
    return set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))


def needed_by(package: str) -> set[str]:
    """Packages that an installed one needs; of its extras none."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        wanted = [Requirement(text) for text in requires(package) or []]
    except PackageNotFoundError:  # of another platform
        return set()
    return {canonicalize_name(one.name) for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})}


def test_what_is_left_out_of_an_image_is_locked_and_no_part_of_it_needs_it() -> None:
    tests_only, with_torch = names("tests-only.txt"), names("with-torch.txt")
    assert tests_only | with_torch <= locked()
    base = locked() - tests_only - with_torch
    assert {"kfp", "mlflow", "kubernetes", "pyarrow", "transformers"} <= base
    # Named in the metadata, but not imported by what runs in an image.
    unused = {("kfp", "pytest"), ("kfp", "pytest-xdist")}
    missing = {(one, other) for one in base for other in needed_by(one) & (tests_only | with_torch)} - unused
    assert missing == set()
    missing = {(one, other) for one in with_torch for other in needed_by(one) & tests_only}
    assert missing == set()


def test_every_target_ends_as_an_ordinary_user_with_the_commit_on_it() -> None:
    targets = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    assert [re.match(r"\S+ AS (\w+)", text)[1] for text in targets] == ["base", *image.named()]
    for text in targets[1:]:
        assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["10001:10001"]
        assert 'org.opencontainers.image.revision="${COMMIT}"' in text
        assert "RETINALOGOS_COMMIT=${COMMIT}" in text


def test_packages_are_installed_by_hash_and_nothing_by_a_moving_name() -> None:
    installs = re.findall(r"pip install.*", DOCKERFILE)
    assert installs
    assert all("--require-hashes --no-deps" in line for line in installs)
    (base,) = re.findall(r"^ARG BASE=(.*)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+-[\w-]+", base)
    assert not re.search(r"\b(curl|wget|ADD)\b", DOCKERFILE)


def test_every_step_names_an_image_by_digest(monkeypatch) -> None:
    monkeypatch.delenv(image.VARIABLE, raising=False)
    for target, reference in image.named().items():
        assert image.image(target) == reference
        assert f"-{target}@sha256:" in reference
    monkeypatch.setenv(image.VARIABLE, f"example.org/own@{DIGEST}")
    assert image.image("gpu") == f"example.org/own@{DIGEST}"
    monkeypatch.setenv(image.VARIABLE, "example.org/own:1.0")
    with pytest.raises(UsageError, match="not named by digest"):
        image.image()


@pytest.fixture
def lock_files(tmp_path: Path, monkeypatch) -> Path:
    """Copies of the files that `make image-lock` writes."""
    for place in ("_NAMES", "_MANIFESTS"):
        file = getattr(image, place)
        copy = tmp_path / place / file.name
        copy.parent.mkdir()
        shutil.copy(file, copy)
        monkeypatch.setattr(image, place, copy)
    return tmp_path


def test_published_digests_are_recorded_for_steps_and_manifests(lock_files: Path, monkeypatch) -> None:
    monkeypatch.delenv(image.VARIABLE, raising=False)
    before = image.named()
    comment = (lock_files / "_NAMES" / "images.yaml").read_text().split("client:")[0]
    published = f"registry.example:5000/team/retinalogos-gpu@{DIGEST}"
    assert image.main(["record", published]) == 0
    assert image.named() == before | {"gpu": published}
    assert image.is_published(image.image("gpu"))
    assert (lock_files / "_NAMES" / "images.yaml").read_text().startswith(comment)
    images = yaml.safe_load((lock_files / "_MANIFESTS" / "kustomization.yaml").read_text())["images"]
    expected = {"name": "retinalogos-gpu", "newName": "registry.example:5000/team/retinalogos-gpu", "digest": DIGEST}
    assert expected in images
    assert len(images) == len(before)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["record"],
        ["record", "example.org/retinalogos-gpu:1.0"],
        ["record", f"example.org/retinalogos-tpu@{DIGEST}"],
        ["record", f"example.org/retinalogos-gpu@{DIGEST}", "example.org/retinalogos-cpu:latest"],
    ],
)
def test_what_is_no_digest_is_not_recorded(lock_files: Path, arguments: list[str], capsys) -> None:
    before = image.named()
    assert image.main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert image.named() == before


def test_the_manifests_have_the_images_of_the_steps() -> None:
    assert image._MANIFESTS.read_text() == image.manifest_images(image.named())


def docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docker {' '.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def engine() -> None:
    """A container engine, or the test is skipped."""
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("no container engine answers `docker info` (DOCKER_HOST)")


@pytest.fixture
def registry(engine, tmp_path: Path) -> Iterator[str]:
    """Where a real registry of this machine keeps images; what the engine has of them goes with it."""
    if shutil.which("docker-registry") is None:
        pytest.skip("no registry (apt-get install docker-registry)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*free.getsockname())
    storage = {"filesystem": {"rootdirectory": str(tmp_path / "registry")}}
    configuration = tmp_path / "registry.yaml"
    configuration.write_text(yaml.safe_dump({"version": 0.1, "storage": storage, "http": {"addr": address}}))
    with (tmp_path / "registry.log").open("w") as log:
        process = subprocess.Popen(["docker-registry", "serve", configuration], stdout=log, stderr=log)
    try:
        host, port = address.split(":")
        while True:
            assert process.poll() is None, (tmp_path / "registry.log").read_text()
            with socket.socket() as one:
                if one.connect_ex((host, int(port))) == 0:
                    break
            time.sleep(0.05)
        yield f"{address}/team"
        kept = docker("images", "--quiet", "--filter", f"reference={address}/team/*").split()
        docker("rmi", "--force", *set(kept))
    finally:
        process.terminate()
        process.wait()


def test_image_lock_publishes_images_and_records_the_digests_that_the_registry_gave(
    registry: str, tmp_path: Path
) -> None:
    """With a file each in place of what they hold, which is not looked at."""
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "--quiet", ROOT, copy], check=True)
    commit = subprocess.run(["git", "-C", copy, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    for target in image.named():
        (tmp_path / target).write_text(target)
        packed = shutil.make_archive(str(tmp_path / target), "tar", tmp_path, target)
        docker("import", packed, f"{registry}/retinalogos-{target}:{commit.stdout.strip()}")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # The environment is the one of the test, and not made anew.
    make = ["make", "--old-file=.venv/.complete", "image-lock", f"REGISTRY={registry}"]
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(copy)}
    done = subprocess.run(make, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    named = yaml.safe_load((copy / "infra" / "images.yaml").read_text())
    assert set(named) == set(image.named())
    assert len(set(named.values())) == len(named)
    for target, reference in named.items():
        assert reference.startswith(f"{registry}/retinalogos-{target}@sha256:")
        docker("pull", reference)
    manifests = (copy / "infra" / "kubernetes" / "images" / "kustomization.yaml").read_text()
    assert manifests == image.manifest_images(named)
    # A tree with changes that stand in no commit publishes nothing.
    done = subprocess.run(make, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "commit first" in done.stdout


@pytest.fixture(scope="module")
def cpu_image(engine) -> str:
    """The image ``cpu``, really built, by `make images` with the options in BUILD."""
    made = subprocess.run(["make", "images", "IMAGES=cpu"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, f"{made.stdout[-5000:]}\n{made.stderr[-5000:]}"
    (tag,) = re.findall(r"Successfully tagged (\S+)|naming to (\S+)", made.stdout + made.stderr)
    return "".join(tag)


def in_container(image: str, folder: Path, *command: str) -> str:
    """Runs a command as Kubernetes' strictest profile would have it: no root, nothing to write to but /tmp and /out."""
    limits = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=12345:12345"]
    limits += [
        "--network=none",
        "--memory=4g",
        "--pids-limit=512",
        "--tmpfs=/tmp:rw,mode=1777",
        f"--volume={folder}:/out",
    ]
    return docker("run", "--rm", *limits, "--env=RETINALOGOS_TRACKING=off", image, *command)


@pytest.mark.slow
def test_steps_run_in_the_real_image_read_only_and_not_as_root(cpu_image: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    settings = [f"--set={name}={value}" for name, value in {"n": 24, "size": 64, "workers": 1}.items()]
    run = ["python", "-m", "components", "run"]
    cohort = ["--out=cohort=/out/cohort", "--out=metrics=/out/ingest.json"]
    in_container(cpu_image, tmp_path, *run, "ingest", *cohort, *settings)
    assert json.loads((tmp_path / "ingest.json").read_text())["rows"] == 24
    assert (tmp_path / "cohort" / "cohort.json").stat().st_uid == 12345
    (tmp_path / "verdict").mkdir()
    (tmp_path / "verdict" / "verdict.json").write_text('{"passed": true, "errors": [], "warnings": []}')
    inputs = ["--in=cohort=/out/cohort", "--in=validation=/out/verdict"]
    model = ["--out=autoencoder=/out/autoencoder", "--out=metrics=/out/autoencode.json"]
    in_container(cpu_image, tmp_path, *run, "autoencode", *inputs, *model, "--set=judged=2")
    assert (tmp_path / "autoencoder" / "diffusion_pytorch_model.safetensors").is_file()
    with pytest.raises(AssertionError, match="Read-only file system"):
        in_container(cpu_image, tmp_path, "python", "-c", "open('/var/tmp/left', 'w')")


@pytest.mark.slow
def test_the_real_image_says_what_code_it_holds_and_has_all_that_it_needs(cpu_image: str, tmp_path: Path) -> None:
    described = json.loads(docker("image", "inspect", cpu_image))[0]["Config"]
    commit = described["Labels"]["org.opencontainers.image.revision"]
    assert cpu_image.endswith(f":{commit}")
    assert f"RETINALOGOS_COMMIT={commit}" in described["Env"]
    assert described["User"] == "10001:10001"
    imports = "import dvc.api, kfp.dsl, great_expectations, mlflow, numpy.testing, torch, diffusers, peft, torchmetrics"
    in_container(cpu_image, tmp_path, "python", "-c", imports)
    in_container(cpu_image, tmp_path, "python", "-m", "kfp.dsl.executor_main", "--help")
    # `ingest` asks DVC for a revision: what it keeps for all users of a machine it must be able to write.
    in_container(
        cpu_image, tmp_path, "sh", "-c", "mkdir /tmp/a && cd /tmp/a && dvc init --quiet --no-scm && dvc status"
    )
