"""Puts the three trained models together and draws the synthetic cohort with them."""

from collections.abc import Iterator

import numpy as np

from components.draw_vessels.step import DrawVesselsParams
from components.step import Metrics, Paths
from retinalogos.cohort.shards import Cohort
from retinalogos.generators.vessel_map.cascade import PARTS, Drawn, VesselMapCascade, Wish, bundle, unbundled
from retinalogos.generators.vessel_map.cohorts import wishes, write_drawn
from retinalogos.generators.vessel_map.grid import write_grid
from retinalogos.progress import track
from retinalogos.provenance import generator_hash

# Eyes on which the seams of tiles are measured: each is enlarged three times more.
_SEAM_EYES = 4


def run(params: DrawVesselsParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    cohort = Cohort(inputs["cohort"])
    bundle({part: inputs[part] for part in PARTS}, outputs["generator"])
    cascade = VesselMapCascade.load(unbundled(outputs["generator"]), params.noise, params.tile, params.overlap)
    name = f"{type(cascade).__name__}:{generator_hash(outputs['generator'])[:16]}"
    first: list[Drawn] = []
    empty = 0

    def drawn() -> Iterator[tuple[Wish, Drawn]]:
        nonlocal empty
        asked = wishes(cohort, params.n, params.seed, cascade.text)
        for wish, eye in track(cascade.stream(asked, params.batch_size), "draw_vessels", total=params.n, unit="eye"):
            if len(first) < params.shown:
                first.append(eye)
            empty += not eye.classes.any()
            yield wish, eye

    write_drawn(drawn(), outputs["synthetic"], f"{cohort.meta['name']}-vessel-map", name, params.large)
    outputs["grid"].mkdir(parents=True)
    write_grid(outputs["grid"] / "grid.png", first, {"generator": name, "seed": params.seed})
    coverage = float(np.mean([(eye.classes > 0).mean() for eye in first]))
    some = first[:_SEAM_EYES]
    images, maps = np.stack([eye.image for eye in some]), np.stack([eye.classes for eye in some])
    seams = cascade.seams(images, [params.seed + i for i in range(len(some))], maps)
    return {
        "eyes": params.n,
        "empty_maps": empty,
        "vessel_share_of_shown": coverage,
        **{f"seam.{name}": value for name, value in seams.items()},
    }
