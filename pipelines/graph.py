"""The main line, declared once: its stages, what feeds them, and where their outputs lie in a working copy.

``dvc.yaml`` has the same stages and edges, which a test compares; the Kubeflow pipeline is built from here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

METRICS = "metrics"


class Source(NamedTuple):
    """Where an input comes from: an output port of an earlier stage."""

    stage: str
    output: str


@dataclass(frozen=True)
class Stage:
    """A step at its place in the graph; its parameters are the section of params.yaml that bears its name.

    Args:
        name: name of the stage.
        step: the step that it runs.
        inputs: source by input port.
        outputs: path by output port, relative to the repository; ``metrics`` goes to ``metrics/<name>.json``.
    """

    name: str
    step: str
    inputs: Mapping[str, Source] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)

    def path(self, output: str) -> str:
        """Where an output lies, relative to the repository."""
        return f"metrics/{self.name}.json" if output == METRICS else self.outputs[output]


# In an order in which they can run.
MAIN_LINE: tuple[Stage, ...] = (
    Stage("ingest", "ingest", {}, {"cohort": "data/cohort"}),
    Stage(
        "validate",
        "validate",
        {"cohort": Source("ingest", "cohort")},
        {"validation": "metrics/validation"},
    ),
    Stage(
        "caption",
        "caption",
        {"cohort": Source("ingest", "cohort"), "validation": Source("validate", "validation")},
        {"captions": "data/captions"},
    ),
    Stage(
        "validate_captions",
        "validate",
        {"cohort": Source("ingest", "cohort"), "captions": Source("caption", "captions")},
        {"validation": "metrics/validation_captions"},
    ),
    Stage(
        "autoencode",
        "autoencode",
        {"cohort": Source("ingest", "cohort"), "validation": Source("validate", "validation")},
        {"autoencoder": "models/autoencoder"},
    ),
    Stage(
        "encode",
        "encode",
        {
            "cohort": Source("ingest", "cohort"),
            "captions": Source("caption", "captions"),
            "autoencoder": Source("autoencode", "autoencoder"),
            "validation": Source("validate_captions", "validation"),
        },
        {"latents": "data/latents"},
    ),
    Stage(
        "pretrain",
        "pretrain",
        {"latents": Source("encode", "latents"), "autoencoder": Source("autoencode", "autoencoder")},
        {"generator": "models/pretrained", "log": "models/pretrain_log"},
    ),
    Stage(
        "purify",
        "purify",
        {
            "cohort": Source("ingest", "cohort"),
            "captions": Source("caption", "captions"),
            "latents": Source("encode", "latents"),
            "generator": Source("pretrain", "generator"),
        },
        {"curated": "data/curated_captions", "page": "metrics/purification"},
    ),
    Stage(
        "encode_curated",
        "encode",
        {
            "cohort": Source("ingest", "cohort"),
            "captions": Source("purify", "curated"),
            "autoencoder": Source("autoencode", "autoencoder"),
            "known": Source("encode", "latents"),
        },
        {"latents": "data/curated_latents"},
    ),
    Stage(
        "finetune",
        "finetune",
        {"latents": Source("encode_curated", "latents"), "pretrained": Source("pretrain", "generator")},
        {"generator": "models/generator", "log": "models/finetune_log"},
    ),
    Stage(
        "augment",
        "augment",
        {"cohort": Source("ingest", "cohort"), "generator": Source("finetune", "generator")},
        {"synthetic": "data/synthetic"},
    ),
    Stage(
        "assess",
        "assess",
        {
            "cohort": Source("ingest", "cohort"),
            "synthetic": Source("augment", "synthetic"),
            "generator": Source("finetune", "generator"),
        },
        {"assessment": "metrics/assessment"},
    ),
    Stage(
        "classify",
        "classify",
        {"cohort": Source("ingest", "cohort"), "synthetic": Source("augment", "synthetic")},
        {"classification": "metrics/classification"},
    ),
    Stage(
        "report",
        "report",
        {
            "cohort": Source("ingest", "cohort"),
            "captions": Source("caption", "captions"),
            "curated": Source("purify", "curated"),
            "synthetic": Source("augment", "synthetic"),
            "assessment": Source("assess", "assessment"),
            "classification": Source("classify", "classification"),
            "validation": Source("validate", "validation"),
            "validation_captions": Source("validate_captions", "validation"),
            "pretrain_log": Source("pretrain", "log"),
            "finetune_log": Source("finetune", "log"),
            "purification": Source("purify", METRICS),
        },
        {"report": "reports"},
    ),
    Stage(
        "register",
        "register",
        {
            "cohort": Source("ingest", "cohort"),
            "generator": Source("finetune", "generator"),
            "assessment": Source("assess", "assessment"),
            "classification": Source("classify", "classification"),
            "report": Source("report", "report"),
        },
        {"registration": "metrics/registration"},
    ),
)
