"""One of the processes that a launcher started: ``torchrun … -m components.worker CALL``.

It does the work of a step and nothing else; the first process writes the outputs and returns the metrics. What is
wrong with parameters or data reaches the caller as the same error, through a file beside the call.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from components.launcher import COMMIT, ERROR, METRICS
from components.runner import load_step
from components.step import Paths
from retinalogos.errors import DataError, UsageError


def main(path: Path) -> int:
    """Does the work of a call and returns the exit code: 2 if parameters do not fit, 1 if data does not."""
    try:
        call = json.loads(path.read_text(encoding="utf-8"))
        here = os.environ.get(COMMIT)
        if call["commit"] != here:
            raise UsageError(
                f"the workers' image holds the code {here}, the caller's {call['commit']}: give the training runtime "
                "the image that the pipeline was compiled for (infra/images.yaml)"
            )
        step = load_step(call["step"])
        inputs = {port: Path(place) for port, place in call["inputs"].items()}
        outputs = {port: Path(place) for port, place in call["outputs"].items()}
        with tempfile.TemporaryDirectory() as scratch:
            first = os.environ["RANK"] == "0"
            if first:  # an earlier one, on a machine that was taken away, may have left half of them
                for place in outputs.values():
                    shutil.rmtree(place, ignore_errors=True)
            own: Paths = outputs if first else {port: Path(scratch) / place.name for port, place in outputs.items()}
            metrics = step.run(step.params.model_validate(call["params"]), inputs, own)
            if first:
                text = json.dumps(dict(metrics), default=lambda value: value.item())
                _write(path.with_name(METRICS), text)
    except (UsageError, DataError) as error:
        usage = isinstance(error, UsageError)
        said = {"error": "UsageError" if usage else "DataError", "message": str(error)}
        _write(path.with_name(ERROR), json.dumps(said))
        print(f"error: {error}", file=sys.stderr)
        return 2 if usage else 1
    return 0


def _write(path: Path, text: str) -> None:
    """Whole or not at all: the caller looks while this is written."""
    partial = path.with_name(f".partial-{os.environ['RANK']}-{path.name}")
    partial.write_text(text, encoding="utf-8")
    partial.rename(path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
