"""What `make services` and compose.yaml start."""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import boto3
import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw")


def test_compose_names_versions_and_refuses_to_start_without_secrets() -> None:
    text = (ROOT / "infra" / "compose.yaml").read_text()
    services = yaml.safe_load(text)["services"]
    assert set(services) == {"postgres", "store", "bucket", "mlflow"}
    for name, service in services.items():
        image = service["image"]
        assert image.startswith("${RETINALOGOS_IMAGE:?") or re.search(r":v?\d+\.\d+", image), name
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["mem_limit"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert set(service.get("depends_on", {})) <= services.keys(), name
    variables = set(re.findall(r"\$\{(\w+)", text))
    assert variables == set(re.findall(r"\$\{(\w+):\?", text)), "each is asked for where it is missing"


@pytest.fixture
def folder():
    # Not pytest's own: as root, PostgreSQL runs as another user, who may not enter it.
    place = Path(tempfile.mkdtemp(prefix="retinalogos-services-"))
    place.chmod(0o755)
    yield place
    subprocess.run([sys.executable, "infra/services.py", "down", "--folder", place], cwd=ROOT, check=True)
    shutil.rmtree(place)


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens at."""
    for first in range(20000, 30000, count):
        with socket.socket() as one:
            if all(one.connect_ex(("127.0.0.1", first + more)) for more in range(count)):
                return first
    raise AssertionError


def start(folder: Path, port: int) -> tuple[str, dict[str, str]]:
    """Starts what does not run; what it said, and the environment that leads there."""
    up = [sys.executable, "infra/services.py", "up", "--folder", folder, "--port", str(port)]
    done = subprocess.run(up, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    exported = dict(re.findall(r"^export (\w+)=(\S+)$", done.stdout, re.MULTILINE))
    return done.stdout, {**os.environ, **exported, "PYTHONPATH": str(ROOT)}


def publish_while_the_store_is_killed(folder: Path, port: int, environment: dict[str, str], large: Path) -> None:
    """Sends a folder, kills the gateway when parts of it are under way, and starts it again."""
    call = f"publish(pathlib.Path({str(large)!r}), 's3://retinalogos/large')"
    command = [sys.executable, "-c", f"import pathlib\nfrom retinalogos.storage import publish\n{call}"]
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    keys = {name.lower(): environment[name] for name in names}
    client = boto3.Session(**keys).client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"], region_name="us-east-1")
    publishing = subprocess.Popen(command, env=environment)
    while not client.list_multipart_uploads(Bucket="retinalogos").get("Uploads"):
        assert publishing.poll() is None
        time.sleep(0.02)
    os.kill(int((folder / "store" / "client.rgw.pid").read_text()), signal.SIGKILL)
    assert publishing.poll() is None
    start(folder, port)
    assert publishing.wait(timeout=600) == 0


def publish_into_a_store_without_room(folder: Path, environment: dict[str, str], large: Path, tmp_path: Path) -> None:
    """Ceph's quota of a user, less than is to be sent; then it is lifted and the same call made again."""
    address = "s3://retinalogos/late"

    def quota(*words: str) -> None:
        command = ["radosgw-admin", "-n", "client.rgw", "quota", *words, "--quota-scope=user", "--uid=retinalogos"]
        configured = environment | {"CEPH_CONF": str(folder / "store" / "ceph.conf")}
        subprocess.run(command, env=configured, check=True, capture_output=True)

    def storage(*words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "components.cli", *words]
        return subprocess.run(command, env=environment, check=False, capture_output=True, text=True, cwd=ROOT)

    quota("set", f"--max-size={32 * 2**20}")
    quota("enable")
    refused = storage("publish", large, address)
    assert refused.returncode == 1
    assert "QuotaExceeded" in refused.stderr
    assert "make room in the store, or have the quota raised" in refused.stderr
    assert storage("versions", address).stdout == ""
    assert "nothing is published" in storage("fetch", address, tmp_path / "late").stderr
    quota("disable")
    assert storage("publish", large, address).returncode == 0
    assert storage("fetch", address, tmp_path / "late").returncode == 0
    assert (tmp_path / "late" / "weights.bin").read_bytes() == (large / "weights.bin").read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(not all(map(shutil.which, PROGRAMS)), reason="Ceph's S3 gateway is not installed (docs/storage.md)")
def test_services_keep_what_they_were_given_over_a_stop_and_a_kill(folder: Path, tmp_path: Path) -> None:
    if not Path("/usr/lib/postgresql").is_dir():
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    port = free_ports(4)
    large = tmp_path / "large"
    large.mkdir()
    (large / "weights.bin").write_bytes(random.Random(0).randbytes(160 * 2**20))  # ten parts
    for number, script in enumerate(
        (
            "mlflow.set_experiment('eyes')\n"
            "with mlflow.start_run() as run:\n"
            "    mlflow.log_metric('fid', 2.5)\n"
            "    mlflow.log_text('seen', 'note.txt')\n"
            f"publish(pathlib.Path({str(ROOT / 'infra')!r}), 's3://retinalogos/infra')\n",
            "[run] = mlflow.search_runs(experiment_names=['eyes'], output_format='list')\n"
            "assert run.data.metrics == {'fid': 2.5}\n"
            "assert run.info.artifact_uri.startswith('s3://retinalogos/mlflow/')\n"
            "assert mlflow.artifacts.load_text(f'{run.info.artifact_uri}/note.txt') == 'seen'\n"
            f"fetch('s3://retinalogos/infra', pathlib.Path({str(tmp_path / 'infra')!r}))\n"
            f"fetch('s3://retinalogos/large', pathlib.Path({str(tmp_path / 'fetched')!r}))\n",
        )
    ):
        said, environment = start(folder, port)
        assert said == (folder / "env").read_text()
        assert (folder / "env").stat().st_mode & 0o077 == 0, "it holds passwords"
        script = f"import mlflow, pathlib\nfrom retinalogos.storage import fetch, publish\n{script}"
        subprocess.run([sys.executable, "-c", script], env=environment, check=True, cwd=tmp_path)
        if number == 0:
            publish_while_the_store_is_killed(folder, port, environment, large)
            publish_into_a_store_without_room(folder, environment, large, tmp_path)
        subprocess.run([sys.executable, "infra/services.py", "down", "--folder", folder], cwd=ROOT, check=True)
        with socket.socket() as one:
            assert all(one.connect_ex(("127.0.0.1", port + more)) for more in range(4)), "one of them still listens"
    assert (tmp_path / "fetched" / "weights.bin").read_bytes() == (large / "weights.bin").read_bytes()
    assert (tmp_path / "infra" / "compose.yaml").read_bytes() == (ROOT / "infra" / "compose.yaml").read_bytes()
