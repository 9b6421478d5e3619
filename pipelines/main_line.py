"""The main line: photographs and records to captions, a generator, a synthetic cohort and the evidence."""

from pipelines.graph import METRICS, Pipeline, Source, Stage

# In an order in which they can run.
STAGES: tuple[Stage, ...] = (
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
        {"captions": "data/captions", "page": "metrics/captions"},
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
        "ablate",
        "ablate",
        {
            "cohort": Source("ingest", "cohort"),
            "captions": Source("caption", "captions"),
            "autoencoder": Source("autoencode", "autoencoder"),
            "known": Source("encode", "latents"),
            "pretrained": Source("pretrain", "generator"),
            "latents": Source("encode_curated", "latents"),
            "log": Source("finetune", "log"),
            "synthetic": Source("augment", "synthetic"),
            "assessment": Source("assess", "assessment"),
        },
        {"ablation": "metrics/ablation"},
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
            "ablation": Source("ablate", "ablation"),
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


def _stages(*names: str) -> tuple[Stage, ...]:
    return tuple(stage for stage in STAGES if stage.name in names)


TRAINING = ("autoencode", "encode", "pretrain", "purify", "encode_curated", "finetune")
PIPELINES: dict[str, Pipeline] = {
    pipeline.name: pipeline
    for pipeline in (
        Pipeline("full", "fundus photographs to captions, generator, synthetic cohort and evidence", STAGES),
        Pipeline(
            "minimal",
            "a first run of the whole workflow: a preset, a data set, a seed and single settings",
            STAGES,
            composed=True,
        ),
        Pipeline("caption", "captions of a cohort", _stages("validate", "caption", "validate_captions")),
        Pipeline(
            "train",
            "a cohort and its captions to a generator",
            _stages("validate", "validate_captions", *TRAINING),
        ),
        Pipeline(
            "evaluate",
            "a generator to a synthetic cohort and the evidence that it helps",
            _stages("augment", "assess", "classify"),
        ),
    )
}
