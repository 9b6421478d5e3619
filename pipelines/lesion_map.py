"""The graph of lesion maps: grade to seven-channel map to photograph, and what its pictures are good for."""

from pipelines.graph import Source, Stage

NAME = "lesion_map"
_COHORT = Source("ingest", "cohort")
_LAYOUT, _RENDER = Source("train_layout", "layout"), Source("train_render", "render")
_SYNTHETIC = Source("draw_lesion_maps", "synthetic")

STAGES: tuple[Stage, ...] = (
    Stage("ingest", "ingest", {}, {"cohort": "data/lesion_map/cohort"}, NAME),
    Stage(
        "train_layout",
        "train_layout",
        {"cohort": _COHORT},
        {"layout": "models/lesion_map/layout", "training": "models/lesion_map/layout_training"},
        NAME,
    ),
    Stage(
        "train_render",
        "train_render",
        {"cohort": _COHORT},
        {"render": "models/lesion_map/render", "training": "models/lesion_map/render_training"},
        NAME,
    ),
    Stage(
        "draw_lesion_maps",
        "draw_lesion_maps",
        {"cohort": _COHORT, "layout": _LAYOUT, "render": _RENDER},
        {"synthetic": "data/lesion_map/synthetic"},
        NAME,
    ),
    Stage(
        "judge_lesion_maps",
        "judge_lesion_maps",
        {"cohort": _COHORT, "synthetic": _SYNTHETIC, "layout": _LAYOUT, "render": _RENDER},
        {"judgement": "metrics/lesion_map/judgement"},
        NAME,
    ),
    Stage(
        "try_lesion_maps",
        "try_lesion_maps",
        {"cohort": _COHORT, "synthetic": _SYNTHETIC},
        {"trial": "metrics/lesion_map/trial"},
        NAME,
    ),
)
