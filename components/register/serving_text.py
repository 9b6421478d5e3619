"""The registered model as code: MLflow runs this file and serves what it sets. Nothing is pickled.

The weights are the artifact ``generator``, a diffusers-layout folder of safetensors files, or the artifact ``weights``,
a note that says where they are published and by what hash.
"""

from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from retinalogos.generators.text import TextToFundusPipeline
from retinalogos.provenance import base64_png, generator_hash
from retinalogos.storage import weights_of


class TextToFundusModel(PythonModel):
    """Prompts (and seeds) in, PNG pictures in base64 out; the provenance stands in each picture."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the generator from the model's artifacts, or from where it is published.

        Raises:
            DataError: what is published there has another hash, or the store does not answer.
        """
        folder = weights_of(context.artifacts)
        self._pipeline = TextToFundusPipeline.from_pretrained(folder)
        self._hash = generator_hash(folder)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One picture for each row.

        Args:
            context: not used.
            model_input: column ``prompt``; column ``seed`` may be absent or have gaps, which count as 0.
            params: not used.

        Returns:
            Column ``image``: base64 of a PNG.
        """
        prompts = model_input["prompt"].tolist()
        seeds = [0] * len(prompts)
        if "seed" in model_input:
            seeds = model_input["seed"].fillna(0).astype(int).tolist()
        images = self._pipeline(prompts, seeds=seeds)
        encoded = []
        for prompt, seed, image in zip(prompts, seeds, images, strict=True):
            record = {
                "prompt": prompt,
                "seed": seed,
                "generator": type(self._pipeline).__name__,
                "generator_sha256": self._hash,
            }
            encoded.append(base64_png(image, record))
        return pd.DataFrame({"image": encoded})


mlflow.models.set_model(TextToFundusModel())
