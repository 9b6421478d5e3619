"""PostgreSQL, an object store and an MLflow server on this machine, without containers: ``make services``.

PostgreSQL and the store (Ceph's S3 gateway on one disk file) are Debian's packages; MLflow is the one in this
environment. What they keep, their logs and their passwords lie in one folder, and they listen on 127.0.0.1 alone.
"""

import argparse
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "run" / "services"
PACKAGES = "postgresql ceph-mon ceph-osd ceph-common radosgw"
BUCKET = "retinalogos"
NAME = "mlflow"  # of the database, its owner and the prefix of artifacts
# Longer than any of them takes, also where other work has the cores (on two idle ones MLflow's first start takes 25 s).
PATIENCE = 900
# The disk file is sparse: it grows to this as objects come.
STORE_BYTES = 100 * 2**30


class Refused(RuntimeError):
    """A service cannot be started; the message says what to do."""


def postgres_programs() -> Path | None:
    """Folder of ``initdb`` and ``pg_ctl``, the newest version's; Debian keeps them outside the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def start_postgres(folder: Path, port: int, password: str, options: Sequence[str] = ()) -> str:
    """Starts a private cluster in ``folder``, made at the first call; returns the SQLAlchemy URL of its database.

    Raises:
        Refused: PostgreSQL is not installed or does not start.
    """
    programs = postgres_programs()
    if programs is None:
        raise Refused(f"PostgreSQL is missing: apt-get install {PACKAGES}")
    data = folder / "data"
    if not data.exists():
        folder.mkdir(parents=True, exist_ok=True)
        secret = folder / "password"
        secret.write_text(password)
        secret.chmod(0o600)
        if os.geteuid() == 0:
            for path in (folder, secret):
                shutil.chown(path, "postgres")
        how = [f"--pwfile={secret}", "--auth=scram-sha-256", "--encoding=UTF8"]
        _run([programs / "initdb", "-D", data, "-U", NAME, *how], cwd="/", **_as_postgres())
    if not _postgres_runs(programs, data):
        # No socket in the file system: its path may be no longer than 107 characters.
        settings = f"-p {port} -c listen_addresses=127.0.0.1 -k '' {' '.join(options)}"
        log = ("-l", folder / "log")
        _run([programs / "pg_ctl", "-D", data, *log, "-w", "-o", settings, "start"], cwd="/", **_as_postgres())
    # `postgresql://` would be read as psycopg 3, which is another package.
    return f"postgresql+psycopg2://{NAME}:{password}@127.0.0.1:{port}/postgres"


def stop_postgres(folder: Path) -> None:
    """Stops the cluster of :func:`start_postgres`, if it runs."""
    programs = postgres_programs()
    if programs and _postgres_runs(programs, folder / "data"):
        stop = [programs / "pg_ctl", "-D", folder / "data", "-m", "fast", "-w", "stop"]
        _run(stop, cwd="/", **_as_postgres())


def _postgres_runs(programs: Path, data: Path) -> bool:
    status = [programs / "pg_ctl", "-D", data, "status"]
    return subprocess.run(status, cwd="/", capture_output=True, check=False, **_as_postgres()).returncode == 0


def _as_postgres() -> dict[str, Any]:
    """Who runs a command of PostgreSQL's, which refuses to be root: Debian's user ``postgres`` instead."""
    return {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}


def _run(words: Sequence[str | Path], **more: Any) -> None:
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **more)
    if done.returncode:
        raise Refused(f"{shlex.join(map(str, words))} ended with {done.returncode}: {done.stdout.strip()[-1000:]}")


def start_store(folder: Path, port: int, access_key: str, secret_key: str) -> None:
    """Starts Ceph's S3 gateway over one monitor and one disk file in ``folder``, and waits until it answers.

    Raises:
        Refused: Ceph is not installed or does not start.
    """
    if any(shutil.which(program) is None for program in ("ceph-mon", "ceph-osd", "radosgw", "monmaptool")):
        raise Refused(f"Ceph's S3 gateway is missing: apt-get install --no-install-recommends {PACKAGES}")
    first = not (folder / "whole").exists()
    if first:
        stop_store(folder)  # of an attempt that failed half way
        _make_store(folder, port)
    environment = {**os.environ, "CEPH_CONF": str(folder / "ceph.conf")}

    def ceph(*words: str) -> None:
        _run(words, env=environment)

    if not _runs(folder / "mon.a.pid"):
        if first:
            ceph("ceph-mon", "--mkfs", "-i", "a", "--monmap", str(folder / "monmap"))
        ceph("ceph-mon", "-i", "a")
    if not _runs(folder / "osd.0.pid"):
        if first:
            number = str(uuid.uuid4())
            ceph("ceph", "osd", "new", number, "0")
            ceph("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", number)
        ceph("ceph-osd", "-i", "0")
    if not _runs(folder / "client.rgw.pid"):
        ceph("radosgw", "-n", "client.rgw")
    if first:
        user = (
            "radosgw-admin",
            "-n",
            "client.rgw",
            "user",
            "create",
            "--uid=retinalogos",
            "--display-name=retinalogos",
        )
        ceph(*user, f"--access-key={access_key}", f"--secret-key={secret_key}")
        (folder / "whole").touch()
    _wait(f"http://127.0.0.1:{port}", folder)


def _make_store(folder: Path, port: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir(parents=True)
    cluster, monitor = str(uuid.uuid4()), f"v2:127.0.0.1:{port + 1}"
    settings = {
        "global": {
            "fsid": cluster,
            "mon host": monitor,
            "public addr": "127.0.0.1",
            "cluster addr": "127.0.0.1",
            "ms bind msgr1": "false",
            # Between processes of one machine that listen to no other; who asks the gateway must sign.
            "auth cluster required": "none",
            "auth service required": "none",
            "auth client required": "none",
            # The default, encryption first, would ask for the keys that "none" does without.
            "ms mon client mode": "crc secure",
            "ms mon service mode": "crc secure",
            "ms mon cluster mode": "crc secure",
            # One disk: one copy of everything, and few placement groups.
            "osd pool default size": "1",
            "osd pool default min size": "1",
            "osd pool default pg num": "4",
            "osd pool default pg autoscale mode": "off",
            "osd crush chooseleaf type": "0",
            "mon max pg per osd": "1000",
            "run dir": str(folder),
            "pid file": str(folder / "$name.pid"),
            "log file": str(folder / "$name.log"),
            "admin socket": str(folder / "$name.sock"),
            "crash dir": str(folder),
        },
        "mon.a": {"mon data": str(folder / "mon")},
        "osd": {
            "osd data": str(folder / "osd"),
            "osd objectstore": "bluestore",
            "bluestore block size": str(STORE_BYTES),
            "bluestore cache autotune": "false",
            "bluestore cache size": str(64 * 2**20),
        },
        "client.rgw": {"rgw frontends": f"beast endpoint=127.0.0.1:{port}", "rgw data": str(folder / "rgw")},
    }
    lines = (
        f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())
        for section, values in settings.items()
    )
    (folder / "ceph.conf").write_text("\n".join(lines))
    environment = {**os.environ, "CEPH_CONF": str(folder / "ceph.conf")}
    map_ = ["monmaptool", "--create", "--fsid", cluster, "--addv", "a", f"[{monitor}]", str(folder / "monmap")]
    _run(map_, env=environment)


def stop_store(folder: Path) -> None:
    """Stops what :func:`start_store` started, the gateway first."""
    for name in ("client.rgw", "osd.0", "mon.a"):
        _stop(folder / f"{name}.pid")


def start_mlflow(folder: Path, port: int, database: str, store: dict[str, str]) -> str:
    """Starts an MLflow server over the database and the store, which it does not ask; returns its URL.

    Clients send artifacts to the store themselves: through the server, large ones take its memory and time out.
    """
    url = f"http://127.0.0.1:{port}"
    folder.mkdir(parents=True, exist_ok=True)
    pid = folder / "mlflow.pid"
    if not _runs(pid):
        words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        words += ["--no-serve-artifacts", "--default-artifact-root", f"s3://{BUCKET}/{NAME}"]
        with (folder / "mlflow.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *words],
                # Not on the command line, where every user of the machine could read the password.
                env={**os.environ, **store, "MLFLOW_BACKEND_STORE_URI": database},
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=folder,
            )
        pid.write_text(str(process.pid))
    return url


def _wait(url: str, folder: Path) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError:
            return  # it answers
        except OSError:
            time.sleep(0.3)
    raise Refused(f"nothing answers at {url}; see the logs in {folder}")


# What writes each file with a process's number.
_PROGRAMS = {"mon.a": "ceph-mon", "osd.0": "ceph-osd", "client.rgw": "radosgw", "mlflow": "mlflow"}


def _runs(pid: Path) -> bool:
    """Whether the process of the file is there; after a crash of the machine its number may be another program's."""
    try:
        words = Path(f"/proc/{int(pid.read_text())}/cmdline").read_text()
    except (OSError, ValueError):
        return False
    return _PROGRAMS[pid.stem] in words


def _stop(pid: Path) -> None:
    if _runs(pid):
        os.kill(int(pid.read_text()), signal.SIGTERM)
        until = time.monotonic() + PATIENCE
        while _runs(pid) and time.monotonic() < until:
            time.sleep(0.1)
    pid.unlink(missing_ok=True)


def up(folder: Path, port: int) -> dict[str, str]:
    """Starts what does not run yet; returns the environment that leads to it.

    Args:
        folder: where everything lies.
        port: of MLflow; PostgreSQL has the next one, the store the one after that.

    Raises:
        Refused: one of them cannot be started.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keys = folder / "keys.json"
    if not keys.exists():
        keys.touch(0o600)
        keys.write_text(json.dumps({name: secrets.token_hex(16) for name in ("database", "access", "secret")}))
    known = json.loads(keys.read_text())
    database = start_postgres(folder / "postgresql", port + 1, known["database"])
    store = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port + 2}",
        "AWS_ACCESS_KEY_ID": known["access"],
        "AWS_SECRET_ACCESS_KEY": known["secret"],
        "AWS_DEFAULT_REGION": "us-east-1",
        # boto3's own default sends checksums that stores other than Amazon's refuse or misread.
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }
    # Both take a while to come up, so MLflow does it beside the store.
    server = start_mlflow(folder / "mlflow", port, database, store)
    start_store(folder / "store", port + 2, known["access"], known["secret"])
    _make_bucket(store)
    _wait(f"{server}/health", folder / "mlflow")
    environment = {"MLFLOW_TRACKING_URI": server, **store}
    exports = folder / "env"
    exports.touch(0o600)
    exports.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()))
    return environment


def _make_bucket(store: dict[str, str]) -> None:
    os.environ.update(store)
    import boto3

    client = boto3.Session().client("s3")
    if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=BUCKET)


def down(folder: Path) -> None:
    """Stops what :func:`up` started; what they keep stays."""
    _stop(folder / "mlflow" / "mlflow.pid")
    stop_store(folder / "store")
    stop_postgres(folder / "postgresql")


def main() -> int:
    """Runs the command line and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["up", "down"])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where everything lies (default: run/services)")
    parser.add_argument("--port", type=int, default=5000, help="of MLflow; the two after it are taken too")
    options = parser.parse_args()
    folder = options.folder.resolve()
    if options.command == "down":
        down(folder)
        return 0
    try:
        environment = up(folder, options.port)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()), end="")
    print(f"They run. To use them in this shell: . {folder / 'env'}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
