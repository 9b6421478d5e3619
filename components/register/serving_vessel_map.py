"""The registered generator of vessel maps as code, as serving_text.py is of photographs."""

from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from retinalogos.generators.vessel_map.cascade import VesselMapCascade, Wish, unbundled
from retinalogos.generators.vessel_map.examples import SIDES
from retinalogos.generators.vessel_map.maps import to_colour
from retinalogos.provenance import base64_png, generator_hash
from retinalogos.storage import weights_of

# Eyes drawn at once: bounds memory.
_BATCH = 8


class VesselMapModel(PythonModel):
    """Prompts and seeds in, vessel maps and photographs out, PNG in base64; the provenance stands in each."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the generator from the model's artifacts, or from where it is published."""
        folder = weights_of(context.artifacts)
        self._cascade = VesselMapCascade.load_whole(unbundled(folder))
        self._hash = generator_hash(folder)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One map and one enlarged photograph for each row.

        Args:
            context: not used.
            model_input: column ``prompt`` may name the side, and is the caption of a painter with captions; column
                ``seed``. Both may be absent or have gaps, which count as an open prompt and as 0.
            params: not used.

        Returns:
            Columns ``map`` and ``image``: base64 of a PNG each.
        """
        rows = model_input.reindex(columns=["prompt", "seed"])
        prompts = [prompt if isinstance(prompt, str) else "" for prompt in rows["prompt"]]
        captioned = self._cascade.text is not None
        wishes = [
            Wish(int(seed), _side(prompt), np.full((2, 2), np.nan), (prompt or None) if captioned else None)
            for prompt, seed in zip(prompts, rows["seed"].fillna(0), strict=True)
        ]
        encoded = []
        for prompt, (wish, eye) in zip(prompts, self._cascade.stream(wishes, _BATCH), strict=True):
            record: dict[str, str | int | float | None] = {
                "prompt": prompt or None,
                "seed": wish.seed,
                "generator": type(self._cascade).__name__,
                "generator_sha256": self._hash,
            }
            pictures = {"map": to_colour(eye.classes), "image": eye.enlarged}
            encoded.append({column: base64_png(picture, record) for column, picture in pictures.items()})
        return pd.DataFrame(encoded, columns=["map", "image"])


def _side(prompt: str) -> int:
    """Index into SIDES of the one side that is named; 0 for none or both."""
    words = prompt.lower().split()
    named = [side for side in SIDES if side is not None and side in words]
    return SIDES.index(named[0]) if len(named) == 1 else 0


mlflow.models.set_model(VesselMapModel())
