"""Labels the vessels of a cohort with a segmenter."""

from components.label_vessels.step import LabelVesselsParams
from components.step import Metrics, Paths
from retinalogos.cohort.shards import Cohort
from retinalogos.generators.vessel_map.cohorts import label
from retinalogos.generators.vessel_map.loaders import load_segmenter


def run(params: LabelVesselsParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    segmenter = load_segmenter(params.segmenter or str(inputs["segmenter"]))
    return label(Cohort(inputs["cohort"]), segmenter, outputs["labelled"])
