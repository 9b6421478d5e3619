"""The graph of hyperspectral cubes: VQ-GAN, diffusion in its latents, and what the cubes drawn are like."""

from pipelines.graph import Source, Stage

NAME = "hyperspectral"
_COHORT, _AUTOENCODER = Source("ingest", "cohort"), Source("train_vqgan", "autoencoder")

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
        {"generator": Source("train_cube_diffusion", "generator")},
        {"synthetic": "data/hyperspectral/synthetic"},
        NAME,
    ),
    Stage(
        "judge_cubes",
        "judge_cubes",
        {
            "cohort": _COHORT,
            "synthetic": Source("draw_synthetic_cubes", "synthetic"),
            "autoencoder": _AUTOENCODER,
            "baseline": Source("train_vqvae", "autoencoder"),
        },
        {"judgement": "metrics/hyperspectral/judgement"},
        NAME,
    ),
    Stage(
        "use_cubes",
        "use_cubes",
        {"cohort": _COHORT, "synthetic": Source("draw_synthetic_cubes", "synthetic")},
        {"use": "metrics/hyperspectral/use"},
        NAME,
    ),
)
