"""Draws synthetic cubes into a cohort of the same form as a real one."""

import time

from components.draw_synthetic_cubes.step import DrawSyntheticCubesParams
from components.step import Metrics, Paths
from retinalogos.cohort.shards import CohortWriter
from retinalogos.generators.hyperspectral.drawn import synthetic_row
from retinalogos.generators.hyperspectral.pipeline import CubePipeline
from retinalogos.progress import track
from retinalogos.provenance import generator_hash
from retinalogos.training.device import device


def run(params: DrawSyntheticCubesParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    pipeline = CubePipeline.from_pretrained(inputs["generator"]).to(device())
    name = f"CubePipeline:{generator_hash(inputs['generator'])[:16]}"
    seeds = range(params.seed * 1_000_000, params.seed * 1_000_000 + params.n)
    spent = 0.0
    with CohortWriter(outputs["synthetic"], "hyperspectral-synthetic", wavelengths=pipeline.wavelengths) as writer:
        for start in track(range(0, params.n, params.batch_size), "draw_synthetic_cubes", unit="batch"):
            began = time.perf_counter()
            some = seeds[start : start + params.batch_size]
            cubes = pipeline(seeds=some, steps=params.steps, batch_size=params.batch_size)
            spent += time.perf_counter() - began
            for seed, cube in zip(some, cubes, strict=True):
                writer.add(synthetic_row(cube, pipeline.wavelengths, name, seed))
    print(f"draw_synthetic_cubes: {params.n / spent:.2f} cubes/s", flush=True)
    return {"drawn": params.n, "bands": len(pipeline.wavelengths), "size": int(pipeline.config.size)}
