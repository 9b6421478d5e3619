"""Strategies: records to write captions of."""

import json
from typing import Any

from hypothesis import strategies as st

from retinalogos.cohort.findings import FINDINGS
from retinalogos.cohort.schema import EYES, GLAUCOMA


def truths() -> st.SearchStrategy[str | None]:
    """Truth of a phantom eye, or any part of one."""
    share = st.floats(0, 1)
    fields = {
        "disc_x": share,
        "fovea_x": share,
        "tone": st.sampled_from(["orange", "dark red"]),
        "tessellation": share,
        "blur_mm": st.floats(0, 0.12),
        "haze": share,
        "glow": share,
        "tortuosity": st.floats(0, 0.5),
        "arteriole_venule_ratio": st.floats(0.4, 0.8),
        "microaneurysms": st.integers(0, 60),
        "haemorrhages": st.lists(st.integers(0, 30), min_size=4, max_size=4),
        "exudate_clusters": st.integers(0, 9),
        "drusen": st.integers(0, 60),
    }
    return st.none() | st.fixed_dictionaries({}, optional=fields).map(json.dumps)


def records() -> st.SearchStrategy[dict[str, Any]]:
    """Any part of a cohort row: every column may be absent, null or given."""
    columns: dict[str, st.SearchStrategy[Any]] = {
        "image_id": st.sampled_from(["00ff00ff00ff00ff", "a1b2c3d4e5f60718"]),
        "eye": st.sampled_from(EYES),
        "dr_grade": st.integers(0, 4),
        "dme": st.integers(0, 1),
        "glaucoma": st.sampled_from(GLAUCOMA),
        "vcdr": st.floats(0, 1),
        "quality": st.floats(0, 1),
        "findings": st.lists(st.sampled_from(sorted(FINDINGS)), unique=True, max_size=6),
        "truth": truths(),
    }
    return st.fixed_dictionaries({}, optional={name: st.none() | values for name, values in columns.items()})
