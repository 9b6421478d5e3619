"""Vessel maps: masks of arteries and veins, the photograph for a mask, and its enlargement, each drawn by diffusion."""

from pipelines.graph import Source, Stage

GROUP = "vessel_map"
_PARTS = ("masks", "paint", "enlarge")
_LABELLED = Source("label_vessels", "labelled")


def _model(part: str) -> Stage:
    return Stage(
        f"train_vessel_{part}",
        "train_vessel_map",
        {"cohort": _LABELLED},
        {"model": f"models/vessel_map/{part}", "log": f"models/vessel_map/{part}_log"},
        GROUP,
    )


STAGES: tuple[Stage, ...] = (
    Stage("ingest", "ingest", {}, {"cohort": "data/vessel_map/cohort"}, GROUP),
    Stage(
        "segment_vessels",
        "segment_vessels",
        {"cohort": Source("ingest", "cohort")},
        {
            "segmenter": "models/vessel_map/segmenter",
            "log": "models/vessel_map/segmenter_log",
            "quality": "metrics/vessel_map/segmenter",
        },
        GROUP,
    ),
    Stage(
        "label_vessels",
        "label_vessels",
        {"cohort": Source("ingest", "cohort"), "segmenter": Source("segment_vessels", "segmenter")},
        {"labelled": "data/vessel_map/labelled"},
        GROUP,
    ),
    *(_model(part) for part in _PARTS),
    Stage(
        "draw_vessels",
        "draw_vessels",
        {
            "cohort": _LABELLED,
            **{part: Source(f"train_vessel_{part}", "model") for part in _PARTS},
        },
        {"synthetic": "data/vessel_map/synthetic", "grid": "metrics/vessel_map/grid"},
        GROUP,
    ),
    Stage(
        "judge_vessels",
        "judge_vessels",
        {
            "cohort": _LABELLED,
            "synthetic": Source("draw_vessels", "synthetic"),
            "segmenter": Source("segment_vessels", "segmenter"),
            "paint": Source("train_vessel_paint", "model"),
        },
        {"judgement": "metrics/vessel_map/judgement"},
        GROUP,
    ),
    Stage(
        "use_vessels",
        "use_vessels",
        {"cohort": Source("ingest", "cohort"), "synthetic": Source("draw_vessels", "synthetic")},
        {"use": "metrics/vessel_map/use"},
        GROUP,
    ),
    Stage(
        "register_vessel_map",
        "register_vessel_map",
        {
            "cohort": _LABELLED,
            **{part: Source(f"train_vessel_{part}", "model") for part in _PARTS},
            "judgement": Source("judge_vessels", "judgement"),
            "use": Source("use_vessels", "use"),
        },
        {"registration": "metrics/vessel_map/registration", "cascade": "models/vessel_map/cascade"},
        GROUP,
    ),
)
