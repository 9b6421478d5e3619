"""A compiled pipeline sent to a Kubeflow server, and its run followed to the end."""

import contextlib
import io
import json
import os
import time
import urllib.request
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api
import urllib3

from retinalogos.errors import UsageError

EXPERIMENT = "retinalogos"
# Bearer token of a server that asks for one, as a variable so that it stands in no shell's history.
TOKEN = "KFP_TOKEN"
_ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
# Seconds between looks at a run, and how many in a row may fail: a server that starts again is waited for 10 minutes.
_PAUSE, _FAILURES = 5.0, 120
# Of each task the server shows the pods of Kubeflow itself too.
_OWN = ("root", "executor")


@dataclass(frozen=True)
class Run:
    """A run on a server.

    Attributes:
        identifier: as the server names it.
        link: its page.
    """

    client: kfp.Client
    identifier: str
    link: str


def submit(package: Path, host: str, name: str, arguments: Mapping[str, Any], namespace: str | None = None) -> Run:
    """Starts a run.

    Args:
        package: the compiled pipeline.
        host: address of the server.
        name: of the run.
        arguments: values of parameters without a default.
        namespace: of a server with several users.

    Raises:
        UsageError: there is no such server, or it refuses the run.
    """
    token = os.environ.get(TOKEN)
    address = host.rstrip("/")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        # The client itself asks five times, with a traceback for each.
        health = urllib.request.Request(f"{address}/apis/v2beta1/healthz", headers=headers)
        with urllib.request.urlopen(health, timeout=10) as answer:
            json.load(answer)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"no Kubeflow Pipelines at {host} ({error}); check --host, and {TOKEN} where it asks"
        ) from None
    # The client prints links of its own.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        client = kfp.Client(host=address, existing_token=token, **({"namespace": namespace} if namespace else {}))
        try:
            experiment = client.create_experiment(EXPERIMENT, namespace=namespace)
            run = client.run_pipeline(experiment.experiment_id, name, str(package), dict(arguments))
        except kfp_server_api.ApiException as error:
            raise UsageError(f"{host} refuses the run: {_said(error)}") from None
    return Run(client, run.run_id, f"{address}/#/runs/details/{run.run_id}")


def follow(run: Run, pause: float = _PAUSE) -> bool:
    """Prints each task as it starts and ends; returns whether the run succeeded.

    Raises:
        UsageError: the server does not answer any more.
    """
    began, failures = time.monotonic(), 0
    seen: dict[str, str] = {}
    while True:
        try:
            state = run.client.get_run(run.identifier)
            failures = 0
        except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError) as error:
            failures += 1
            if failures == _FAILURES or getattr(error, "status", 500) in (401, 403, 404):
                raise UsageError(f"{run.link} cannot be followed any more: {_said(error)}") from None
            time.sleep(pause)
            continue
        tasks = [task for task in (state.run_details and state.run_details.task_details) or [] if _is_task(task)]
        done = sum(task.state in ("SUCCEEDED", "SKIPPED") for task in tasks)
        for task in tasks:
            if task.state and task.state != seen.get(task.task_id):
                seen[task.task_id] = task.state
                minutes, seconds = divmod(int(time.monotonic() - began), 60)
                reason = f": {task.error.message}" if task.error and task.error.message else ""
                said = f"{done:2d} done  {task.display_name} {task.state.lower()}{reason}"
                print(f"{minutes:3d}:{seconds:02d}  {said}", flush=True)  # through a pipe too, as it comes
        if state.state in _ENDED:
            reason = f": {state.error.message}" if state.error and state.error.message else ""
            print(f"run {state.state.lower()}{reason}  {run.link}")
            return bool(state.state == "SUCCEEDED")
        time.sleep(pause)


def _is_task(task: Any) -> bool:
    return task.display_name not in _OWN and not task.display_name.endswith("-driver")


def _said(error: Exception) -> str:
    """What the server said, in a line."""
    try:
        text = json.loads(error.body)["message"]  # type: ignore[attr-defined]
    except (AttributeError, ValueError, LookupError, TypeError):
        text = str(error)
    return " ".join(str(text).split())[:300]
