"""The steps of the workflow, one folder each; ``python -m components list`` names them."""

from pathlib import Path

# The repository (or the image's working copy): where params.yaml, run/ and mlflow.db lie.
ROOT = Path(__file__).resolve().parent.parent
