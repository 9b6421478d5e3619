"""The Kubeflow pipeline of the main line, ``full``: from a data set to a registered generator."""

from collections.abc import Mapping
from typing import Any

from kfp.dsl.base_component import BaseComponent

from pipelines.graph import MAIN_LINE
from pipelines.kubeflow import build

NAME = "full"


def full(defaults: Mapping[str, Any]) -> BaseComponent:
    """The pipeline, with the given parameters by stage as its defaults."""
    return build(NAME, "fundus photographs to captions, generator, synthetic cohort and evidence", MAIN_LINE, defaults)
