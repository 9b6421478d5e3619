"""The graph of lesion maps: grade to seven-channel map to photograph, and what its pictures are good for."""

from pipelines.graph import Source, Stage

NAME = "lesion_map"
_COHORT = Source("ingest", "cohort")
_LAYOUT, _RENDER = Source("train_layout", "layout"), Source("train_render", "render")
_GENERATOR, _SYNTHETIC = Source("draw_lesion_maps", "generator"), Source("draw_lesion_maps", "synthetic")
_JUDGEMENT, _TRIAL = Source("judge_lesion_maps", "judgement"), Source("try_lesion_maps", "trial")

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
        {"generator": "models/lesion_map/generator", "synthetic": "data/lesion_map/synthetic"},
        NAME,
    ),
    Stage(
        "judge_lesion_maps",
        "judge_lesion_maps",
        {"cohort": _COHORT, "synthetic": _SYNTHETIC, "generator": _GENERATOR},
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
    Stage(
        "report",
        "report_lesion_maps",
        {
            "cohort": _COHORT,
            "synthetic": _SYNTHETIC,
            "judgement": _JUDGEMENT,
            "trial": _TRIAL,
            "layout_training": Source("train_layout", "training"),
            "render_training": Source("train_render", "training"),
        },
        {"report": "metrics/lesion_map/report"},
        NAME,
    ),
    Stage(
        "register",
        "register",
        {
            "cohort": _COHORT,
            "generator": _GENERATOR,
            "assessment": _JUDGEMENT,
            "classification": _TRIAL,
            "report": Source("report", "report"),
        },
        {"registration": "metrics/lesion_map/registration"},
        NAME,
    ),
)
