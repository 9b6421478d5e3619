"""The registered cascade as code: MLflow runs this file and serves what it sets. Nothing is pickled.

The weights are the artifact ``generator``, a folder with a model for each part, or the artifact ``weights``, a note
that says where they are published and by what hash.
"""

import base64
import io
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from retinalogos.generators.vessel_map.cascade import Cascade, Wish, unbundled
from retinalogos.generators.vessel_map.examples import SIDES
from retinalogos.provenance import generator_hash, write_png
from retinalogos.storage import follow

# Eyes drawn at once: bounds memory.
_BATCH = 8


class VesselMapModel(PythonModel):
    """Prompts (and seeds) in, PNG pictures in base64 out; the provenance stands in each picture."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the cascade from the model's artifacts, or from where it is published.

        Raises:
            DataError: what is published there has another hash, or the store does not answer.
        """
        given = context.artifacts
        folder = Path(given["generator"]) if "generator" in given else follow(Path(given["weights"]))
        self._cascade = Cascade.load_whole(unbundled(folder))
        self._hash = generator_hash(folder)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One picture for each row.

        Args:
            context: not used.
            model_input: column ``prompt``, which may name the side and is the caption of a painter with captions;
                column ``seed`` may be absent or have gaps, which count as 0.
            params: not used.

        Returns:
            Column ``image``: base64 of a PNG.
        """
        prompts = model_input["prompt"].tolist()
        seeds = [0] * len(prompts)
        if "seed" in model_input:
            seeds = model_input["seed"].fillna(0).astype(int).tolist()
        captioned = self._cascade.text is not None
        wishes = [
            Wish(seed, _side(prompt), np.full((2, 2), np.nan), prompt if captioned else None)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        encoded = []
        for prompt, (wish, eye) in zip(prompts, self._cascade.stream(wishes, _BATCH), strict=True):
            record = {"prompt": prompt, "seed": wish.seed, "generator": "vessel_map", "generator_sha256": self._hash}
            buffer = io.BytesIO()
            write_png(buffer, eye.enlarged, record)
            encoded.append(base64.b64encode(buffer.getvalue()).decode())
        return pd.DataFrame({"image": encoded})


def _side(prompt: str) -> int:
    """Index into SIDES of the one side that is named; 0 for none or both."""
    words = prompt.lower().split()
    named = [side for side in SIDES if side is not None and side in words]
    return SIDES.index(named[0]) if len(named) == 1 else 0


mlflow.models.set_model(VesselMapModel())
