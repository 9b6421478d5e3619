"""The registered generator of hyperspectral cubes as code, as serving_text.py is of photographs."""

import base64
import io
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from retinalogos.generators.hyperspectral.drawn import provenance, write_cube
from retinalogos.generators.hyperspectral.pipeline import CubePipeline
from retinalogos.provenance import generator_hash
from retinalogos.storage import weights_of


class CubeModel(PythonModel):
    """Seeds in, cubes and their renderings in base64 out; the provenance stands in each."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the generator from the model's artifacts, or from where it is published."""
        folder = weights_of(context.artifacts)
        self._pipeline = CubePipeline.from_pretrained(folder)
        self._hash = generator_hash(folder)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One cube for each row.

        Args:
            context: not used.
            model_input: column ``seed``.
            params: not used.

        Returns:
            Columns ``cube`` (NumPy archive) and ``image`` (PNG), both in base64.
        """
        seeds = [int(seed) for seed in model_input["seed"]]
        rows = []
        for seed, cube in zip(seeds, self._pipeline(seeds=seeds), strict=True):
            archive, picture = io.BytesIO(), io.BytesIO()
            record = provenance(self._pipeline, self._hash, seed, None, cube.shape[-1])
            write_cube(archive, picture, cube, self._pipeline.wavelengths, record)
            rows.append([base64.b64encode(each.getvalue()).decode() for each in (archive, picture)])
        return pd.DataFrame(rows, columns=["cube", "image"])


mlflow.models.set_model(CubeModel())
