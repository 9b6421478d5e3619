"""Vessel maps: masks of arteries and veins, the photograph for a mask, and its enlargement, each drawn by diffusion."""

from pipelines.graph import Source, Stage

NAME = "vessel_map"
_PARTS = ("masks", "paint", "enlarge")
_COHORT, _LABELLED = Source("ingest", "cohort"), Source("label_vessels", "labelled")
_SYNTHETIC, _GENERATOR = Source("draw_vessels", "synthetic"), Source("draw_vessels", "generator")
_JUDGEMENT, _USE = Source("judge_vessels", "judgement"), Source("use_vessels", "use")


def _model(part: str) -> Stage:
    return Stage(
        f"train_vessel_{part}",
        "train_vessel_map",
        {"cohort": _LABELLED},
        {"model": f"models/vessel_map/{part}", "log": f"models/vessel_map/{part}_log"},
        NAME,
    )


STAGES: tuple[Stage, ...] = (
    Stage("ingest", "ingest", {}, {"cohort": "data/vessel_map/cohort"}, NAME),
    Stage(
        "segment_vessels",
        "segment_vessels",
        {"cohort": _COHORT},
        {
            "segmenter": "models/vessel_map/segmenter",
            "log": "models/vessel_map/segmenter_log",
            "quality": "metrics/vessel_map/segmenter",
        },
        NAME,
    ),
    Stage(
        "label_vessels",
        "label_vessels",
        {"cohort": _COHORT, "segmenter": Source("segment_vessels", "segmenter")},
        {"labelled": "data/vessel_map/labelled"},
        NAME,
    ),
    *(_model(part) for part in _PARTS),
    Stage(
        "draw_vessels",
        "draw_vessels",
        {
            "cohort": _LABELLED,
            **{part: Source(f"train_vessel_{part}", "model") for part in _PARTS},
        },
        {
            "generator": "models/vessel_map/generator",
            "synthetic": "data/vessel_map/synthetic",
            "grid": "metrics/vessel_map/grid",
        },
        NAME,
    ),
    Stage(
        "judge_vessels",
        "judge_vessels",
        {
            "cohort": _LABELLED,
            "synthetic": _SYNTHETIC,
            "segmenter": Source("segment_vessels", "segmenter"),
            "paint": Source("train_vessel_paint", "model"),
        },
        {"judgement": "metrics/vessel_map/judgement"},
        NAME,
    ),
    Stage(
        "use_vessels",
        "use_vessels",
        {"cohort": _COHORT, "synthetic": _SYNTHETIC},
        {"use": "metrics/vessel_map/use"},
        NAME,
    ),
    Stage(
        "report",
        "report_vessels",
        {
            "cohort": _LABELLED,
            "synthetic": _SYNTHETIC,
            "grid": Source("draw_vessels", "grid"),
            "judgement": _JUDGEMENT,
            "use": _USE,
            "segmenter": Source("segment_vessels", "quality"),
            **{f"{part}_log": Source(f"train_vessel_{part}", "log") for part in _PARTS},
            "segmenter_log": Source("segment_vessels", "log"),
        },
        {"report": "metrics/vessel_map/report"},
        NAME,
    ),
    Stage(
        "register",
        "register",
        {
            "cohort": _LABELLED,
            "generator": _GENERATOR,
            "assessment": _JUDGEMENT,
            "classification": _USE,
            "report": Source("report", "report"),
        },
        {"registration": "metrics/vessel_map/registration"},
        NAME,
    ),
)
