"""A registered generator of lesion maps as code: MLflow runs this file and serves what it sets. Nothing is pickled.

Weights as in serving_text.py beside it.
"""

from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from retinalogos.generators.lesion_map import maps
from retinalogos.generators.lesion_map.pipeline import LesionMapPipeline
from retinalogos.provenance import base64_png, generator_hash
from retinalogos.storage import weights_of


class LesionMapModel(PythonModel):
    """Grades (and seeds) in, maps and photographs out, PNG in base64; the provenance stands in each."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the generator from the model's artifacts, or from where it is published.

        Raises:
            DataError: what is published there has another hash, or the store does not answer.
        """
        folder = weights_of(context.artifacts)
        self._pipeline = LesionMapPipeline.from_pretrained(folder)
        self._hash = generator_hash(folder)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One map and one photograph for each row.

        Args:
            context: not used.
            model_input: column ``grade``, 0 to 4; column ``seed`` may be absent or have gaps, which count as 0.
            params: not used.

        Returns:
            Columns ``map`` and ``image``: base64 of a PNG each.
        """
        grades = model_input["grade"].astype(int).tolist()
        seeds = [0] * len(grades)
        if "seed" in model_input:
            seeds = model_input["seed"].fillna(0).astype(int).tolist()
        drawn = self._pipeline.draw(grades, seeds)
        generator = {"generator": type(self._pipeline).__name__, "generator_sha256": self._hash}
        rows = zip(grades, seeds, maps.to_rgb(drawn), self._pipeline.render(drawn, seeds), strict=True)
        encoded = []
        for grade, seed, colours, image in rows:
            record: dict[str, str | int | float | None] = {"grade": grade, "seed": seed, **generator}
            encoded.append({"map": base64_png(colours, record), "image": base64_png(image, record)})
        return pd.DataFrame(encoded, columns=["map", "image"])


mlflow.models.set_model(LesionMapModel())
