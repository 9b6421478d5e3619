"""MLflow's stores for the tests of what is tracked and registered: SQLite, and PostgreSQL where it is installed."""

import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "infra"))
import services

# A new store's hundred migrations take seconds: each is made once and copied for each test.
EMPTY = "empty"


@pytest.fixture(scope="session")
def sqlite_stores(tmp_path_factory) -> Callable[[], str]:
    """Makes empty stores; the answer is the URI of one."""
    empty = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{empty}").search_experiments()

    def make() -> str:
        return f"sqlite:///{shutil.copy(empty, tmp_path_factory.mktemp('store') / 'mlflow.db')}"

    return make


@pytest.fixture(scope="session")
def postgresql_stores() -> Iterator[Callable[[], str]]:
    """The same on a cluster of its own, which is removed in the end."""
    if services.postgres_programs() is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    import psycopg2

    # Not pytest's own folder: root's is closed to the user that PostgreSQL runs as.
    folder = Path(tempfile.mkdtemp(prefix="retinalogos-postgresql-"))
    folder.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = services.start_postgres(
        folder / "cluster", port, secrets.token_hex(8), ["-c fsync=off", "-c max_connections=300"]
    )
    try:
        base, connection = uri.rpartition("/")[0], psycopg2.connect(uri.replace("+psycopg2", ""))
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(f"CREATE DATABASE {EMPTY}")
        mlflow.MlflowClient(f"{base}/{EMPTY}").search_experiments()
        # What MLflow keeps open would forbid to copy it.
        cursor.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{EMPTY}'")

        def make() -> str:
            name = f"store_{secrets.token_hex(4)}"
            cursor.execute(f"CREATE DATABASE {name} TEMPLATE {EMPTY}")
            return f"{base}/{name}"

        yield make
        connection.close()
    finally:
        services.stop_postgres(folder / "cluster")
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def mlflow_store(request) -> str:
    """URI of an empty store, of each kind."""
    return request.getfixturevalue(f"{request.param}_stores")()
