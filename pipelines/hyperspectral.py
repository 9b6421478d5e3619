"""The graph of hyperspectral cubes: VQ-GAN, diffusion in its latents, and what the cubes drawn are like."""

from pipelines.graph import Source, Stage

NAME = "hyperspectral"
_COHORT, _AUTOENCODER = Source("ingest", "cohort"), Source("train_vqgan", "autoencoder")
_GENERATOR, _SYNTHETIC = Source("train_cube_diffusion", "generator"), Source("draw_synthetic_cubes", "synthetic")
_JUDGEMENT, _USE = Source("judge_cubes", "judgement"), Source("use_cubes", "use")

STAGES: tuple[Stage, ...] = (
    Stage("ingest", "ingest_cubes", {}, {"cohort": "data/hyperspectral/cohort"}, NAME),
    Stage(
        "train_vqgan",
        "train_vqgan",
        {"cohort": _COHORT},
        {"autoencoder": "models/hyperspectral/vqgan", "log": "models/hyperspectral/vqgan_log"},
        NAME,
    ),
    # The baseline: the same without an adversary.
    Stage(
        "train_vqvae",
        "train_vqgan",
        {"cohort": _COHORT},
        {"autoencoder": "models/hyperspectral/vqvae", "log": "models/hyperspectral/vqvae_log"},
        NAME,
    ),
    Stage(
        "train_cube_diffusion",
        "train_cube_diffusion",
        {"cohort": _COHORT, "autoencoder": _AUTOENCODER},
        {"generator": "models/hyperspectral/generator", "log": "models/hyperspectral/diffusion_log"},
        NAME,
    ),
    Stage(
        "draw_synthetic_cubes",
        "draw_synthetic_cubes",
        {"generator": _GENERATOR},
        {"synthetic": "data/hyperspectral/synthetic"},
        NAME,
    ),
    Stage(
        "judge_cubes",
        "judge_cubes",
        {
            "cohort": _COHORT,
            "synthetic": _SYNTHETIC,
            "autoencoder": _AUTOENCODER,
            "baseline": Source("train_vqvae", "autoencoder"),
        },
        {"judgement": "metrics/hyperspectral/judgement"},
        NAME,
    ),
    Stage(
        "use_cubes",
        "use_cubes",
        {"cohort": _COHORT, "synthetic": _SYNTHETIC},
        {"use": "metrics/hyperspectral/use"},
        NAME,
    ),
    Stage(
        "search_cubes",
        "search_cubes",
        {
            "cohort": _COHORT,
            "autoencoder": _AUTOENCODER,
            "generator": _GENERATOR,
            "synthetic": _SYNTHETIC,
            "judgement": _JUDGEMENT,
        },
        {"search": "metrics/hyperspectral/search"},
        NAME,
    ),
    Stage(
        "report",
        "report_cubes",
        {
            "cohort": _COHORT,
            "synthetic": _SYNTHETIC,
            "judgement": _JUDGEMENT,
            "use": _USE,
            "search": Source("search_cubes", "search"),
            "vqgan_log": Source("train_vqgan", "log"),
            "vqvae_log": Source("train_vqvae", "log"),
            "diffusion_log": Source("train_cube_diffusion", "log"),
        },
        {"report": "metrics/hyperspectral/report"},
        NAME,
    ),
    Stage(
        "register",
        "register",
        {
            "cohort": _COHORT,
            "generator": _GENERATOR,
            "assessment": _JUDGEMENT,
            "classification": _USE,
            "report": Source("report", "report"),
        },
        {"registration": "metrics/hyperspectral/registration"},
        NAME,
    ),
)
