"""Captions by pods with kfp's local runner: the bytes of the step, nothing paid twice, only what changed runs again."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from captioned_cohort import phantom_rows
from model_server import Reaction, serve

from components import ROOT
from components.runner import run_step
from pipelines.compiled import Compiled, runs_again
from retinalogos.cohort.shards import CohortWriter

# In a process of its own: kfp's local runner is set up for a whole process.
RUN = """
import sys
from pathlib import Path
from kfp import local
from pipelines import cluster, pools
from pipelines.graph import Pipeline
from pipelines.main_line import STAGES as MAIN_LINE
from pipelines.kubeflow import build, write
from pipelines.params import Choices
from pipelines.placement import Placement
folder, cohort, validation, pool, *settings = sys.argv[1:]
pools._FIRST_PAUSE = "0s"
stages = tuple(stage for stage in MAIN_LINE if stage.name == "caption")
unchecked = cluster.read().model_copy(update={"pools_checked": False})
placement = Placement(unchecked, pools.choose("laptop", [f"caption={pool}"]))
built = build(Pipeline("captions", "captions alone", stages), Choices(settings=tuple(settings)), placement)
given = {"cohort": cohort, "validation": validation}
write(built, Path(folder) / "captions.yaml")
runner = local.SubprocessRunner(use_venv=False)
local.init(runner, pipeline_root=f"{folder}/runs", enable_caching=True, raise_on_error=True)
built(**given)
"""


class Runs:
    """Runs of a pipeline that captions two shards, 64 and 16 eyes, by two pods."""

    def __init__(self, folder: Path):
        self.folder, self.known = folder, set()
        self.validation = folder / "validation"
        for name in ("runs", "validation"):
            (folder / name).mkdir()
        (self.validation / "verdict.json").write_text('{"passed": true}')
        with CohortWriter(folder / "cohort", "phantom", shard_bytes=1) as writer:
            for row in phantom_rows(80):
                writer.add(row)

    def run(self, *settings: str, image: str = "0", pool: str = "cpu") -> tuple[list[str], Compiled]:
        """Tasks that ran, sorted, and the compiled pipeline."""
        own = ("caption.pods=2", f"caption.work={self.folder / 'work'}", *settings)
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "RETINALOGOS_TRACKING": "off",
            "RETINALOGOS_IMAGE": f"example.org/retinalogos@sha256:{64 * image}",
        }
        given = [str(self.folder), str(self.folder / "cohort"), str(self.validation), pool]
        command = [sys.executable, "-c", RUN, *given, *own]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        outputs = set((self.folder / "runs").rglob("executor_output.json")) - self.known
        self.known |= outputs
        arguments = {"cohort": str(self.folder / "cohort"), "validation": str(self.validation)}
        return sorted(path.parent.name for path in outputs), Compiled(self.folder / "captions.yaml", arguments)

    def assert_as_by_the_step(self, **changes) -> None:
        """The captions of the only run so far, against the step's own."""
        alone = self.folder / "alone"
        params = yaml.safe_load((ROOT / "params.yaml").read_text())["caption"] | {"work": str(alone / "work")}
        inputs = {"cohort": self.folder / "cohort", "validation": self.validation}
        places = {"captions": alone / "captions", "page": alone / "page", "metrics": alone / "metrics.json"}
        run_step("caption", params | changes, inputs, places)
        (joined,) = (self.folder / "runs").rglob("join-captions/captions")
        assert {path.name for path in joined.iterdir()} == {path.name for path in places["captions"].iterdir()}
        for path in joined.iterdir():
            assert path.read_bytes() == (places["captions"] / path.name).read_bytes(), path.name
        assert json.loads(joined.with_name("metrics").read_text()) == json.loads(places["metrics"].read_text())


@pytest.mark.slow
def test_the_bytes_of_the_step_and_only_what_changed_runs_again(tmp_path) -> None:
    runs = Runs(tmp_path)
    ran, first = runs.run()
    assert ran == ["caption", "caption", "deal-shards", "join-captions", "preflight"]
    runs.assert_as_by_the_step()

    def again(compiled: Compiled) -> set[str]:
        return {name.rpartition("/")[2] for name in runs_again(first, compiled)} - {"importer", "importer-2"}

    # The same: nothing but the look at the surroundings.
    ran, second = runs.run()
    assert ran == ["preflight"]
    assert again(second) == set(ran)
    # Another input: what reads it.
    runs.validation = Path(shutil.copytree(runs.validation, tmp_path / "other"))
    ran, third = runs.run()
    assert ran == ["caption", "caption", "join-captions", "preflight"]
    assert again(third) == set(ran)
    # Another image, which is other code: everything.
    ran, fourth = runs.run(image="1")
    assert ran == ["caption", "caption", "deal-shards", "join-captions", "preflight"]
    assert again(fourth) == set(ran)


@pytest.mark.slow
def test_a_pod_on_a_spot_pool_is_tried_again_and_pays_for_no_caption_twice(tmp_path) -> None:
    answers = iter(range(40))
    refused = []

    def cut_once(body, earlier):
        if next(answers, None) is None and not refused:
            refused.append(body)
            return Reaction(status=401, text="no")
        return Reaction()

    runs = Runs(tmp_path)
    with serve(cut_once) as seen:
        endpoint = f"caption.server.endpoint={seen.url}"
        settings = ("caption.engine=server", "caption.look=false", "caption.server.concurrency=1", endpoint)
        ran, _ = runs.run(*settings, pool="l4-spot")
        assert ran == ["caption", "caption", "deal-shards", "join-captions", "preflight"]
        assert len(refused) == 1
        assert len(seen.sent) == 80
        # What was refused, and the answer that was on its way when the pod ended.
        assert len(seen.bodies) - 80 <= 2
        assert not list((tmp_path / "work").iterdir())
        server = yaml.safe_load((ROOT / "params.yaml").read_text())["caption"]["server"]
        settled = server | {"endpoint": seen.url, "concurrency": 1}
        runs.assert_as_by_the_step(engine="server", look=False, server=settled)
