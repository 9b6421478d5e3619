"""What the trained classifiers said of each image, read back from the table that the comparison writes."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

# Retinopathy from this grade on is referred: moderate and worse, as Abramoff et al., npj Digital Medicine 2018, 1:39.
REFERABLE = 2


def read_scores(path: Path, images: str, arm: str, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Whether each image of a set is positive, bool (n,), and the mean over trainings of its probability, 0-1 (n,).

    Args:
        path: ``predictions.parquet``.
        images: ``test``, or the name of an external set.
        arm: name of the mix.
        task: ``referable_dr``, or a task of two classes.
    """
    head, first = ("dr_grade", REFERABLE) if task == "referable_dr" else (task, 1)
    wanted = [("set", "==", images), ("arm", "==", arm), ("task", "==", head)]
    table = pq.read_table(path, filters=wanted).to_pandas()
    table["score"] = [float(np.sum(each[first:])) for each in table["probabilities"]]
    by_image = table.groupby("image_id").agg(truth=("truth", "first"), score=("score", "mean"))
    return (by_image["truth"] >= first).to_numpy(bool), by_image["score"].to_numpy(float)
