"""The points of the grid: autoencoder and diffusion trained, cubes drawn, judged and timed, as in the workflow."""

import csv
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from components.draw_synthetic_cubes.step import STEP as DRAW
from components.judge_cubes.step import STEP as JUDGE
from components.runner import as_made
from components.search_cubes.figures import MEASURES, Point, front, plot
from components.search_cubes.step import SearchCubesParams
from components.step import AnyStep, Metrics, Paths
from components.train_cube_diffusion.step import STEP as DIFFUSION
from components.train_vqgan.step import STEP as VQGAN
from retinalogos.errors import DataError
from retinalogos.generators.hyperspectral.pipeline import CubePipeline
from retinalogos.lineage import how_made
from retinalogos.metrics.results import write_results
from retinalogos.training.device import device

RESULTS, FIGURES, GENERATOR = "results.json", "figures.json", "generator"
# Drawings that are timed; other work on the machine makes one slower, and none faster.
_TIMINGS = 3
# By which input it is told how a step was run.
_MADE: dict[str, AnyStep] = {"autoencoder": VQGAN, "generator": DIFFUSION, "synthetic": DRAW, "judgement": JUDGE}


def run(params: SearchCubesParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module.

    Raises:
        DataError: nothing says how the workflow's own generator was made and judged.
    """
    home = outputs["search"]
    if not params.enabled:
        write_results(home / RESULTS, {"enabled": False})
        return {"enabled": False}
    chosen = params.share or range(len(params.autoencoders))
    made = [point for number in chosen for point in _points(params, inputs, *params.autoencoders[number])]
    if params.share is None:
        return _compare(params, made, home)
    for point in made:
        shutil.copytree(point, home / point.name)
    return {"enabled": True, "points": len(made)}


def join(parts: Sequence[Path], params: SearchCubesParams, inputs: Paths, outputs: Paths) -> Metrics:
    """What :func:`run` ends with, on points that others have made.

    Raises:
        DataError: points are missing.
    """
    if not params.enabled:
        return run(params, inputs, outputs)
    made = sorted(file.parent for part in parts for file in part.glob(f"*/{FIGURES}"))
    wanted = len(params.autoencoders) * len(params.base_channels)
    if len(made) != wanted:
        raise DataError(f"{len(parts)} parts hold {len(made)} points of {wanted}: give the output of every pod")
    return _compare(params, made, outputs["search"])


def _points(params: SearchCubesParams, inputs: Paths, compression: int, channels: int) -> list[Path]:
    """The points of one autoencoder: folders with a generator and its figures; what is there is not made again."""
    manifests = {port: how_made(inputs[port]) for port in _MADE}
    given = {port: manifest["params"] for port, manifest in manifests.items()}
    key = hashlib.sha256(json.dumps([given, manifests["autoencoder"]["inputs"]], sort_keys=True).encode()).hexdigest()
    home = Path(params.work) / f"search-{key[:16]}"
    own = {"checkpoints": str(home / "work"), "launcher": params.launcher.model_dump(mode="json")}
    cohort = inputs["cohort"]

    def again(port: str, read: Paths, written: Paths, **changes: Any) -> Metrics:
        step = _MADE[port]
        found: Metrics = step.run(as_made(step, inputs[port], **changes), read, written)
        return found

    vqgan = given["autoencoder"]["autoencoder"]
    codebook = given["autoencoder"]["codebook"]
    # K-means needs as many encoder outputs, of which a coarser cube has fewer.
    fewer = max(1.0, (compression / vqgan["compression"]) ** 2)

    def autoencoder(folder: Path) -> None:
        changes = {
            "autoencoder": vqgan | {"compression": compression, "latent_channels": channels},
            "codebook": codebook | {"kmeans_cubes": round(codebook["kmeans_cubes"] * fewer)},
        }
        written = {"autoencoder": folder / "autoencoder", "log": folder / "log"}
        again("autoencoder", {"cohort": cohort}, written, **own, **changes)

    trained = _once(home / f"f{compression}-c{channels}", autoencoder) / "autoencoder"
    points = []
    for base in params.base_channels:

        def point(folder: Path, base: int = base) -> None:
            paths = {name: folder / name for name in (GENERATOR, "log", "synthetic", "judgement")}
            read = {"cohort": cohort, "autoencoder": trained}
            network = given["generator"]["diffusion"] | {"base_channels": base}
            again("generator", read, {name: paths[name] for name in (GENERATOR, "log")}, **own, diffusion=network)
            again("synthetic", {"generator": paths[GENERATOR]}, {"synthetic": paths["synthetic"]})
            judged = again(
                "judgement",
                {**read, "synthetic": paths["synthetic"]},
                {"judgement": paths["judgement"]},
                checkpoints=own["checkpoints"],
            )
            # What is not defined is nan, which JSON has not.
            known = {name: None if value != value else value for name, value in judged.items()}
            figures = {"compression": compression, "latent_channels": channels, "base_channels": base, **known}
            (folder / FIGURES).write_text(json.dumps(figures) + "\n", encoding="utf-8")
            shutil.rmtree(paths["synthetic"])

        points.append(_once(home / f"f{compression}-c{channels}-b{base}", point))
    return points


def _once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder, whole: made beside its place and renamed, unless it is there."""
    if not folder.exists():
        partial = folder.with_name(f".partial-{folder.name}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        make(partial)
        os.replace(partial, folder)
    return folder


def _compare(params: SearchCubesParams, made: Sequence[Path], home: Path) -> Metrics:
    """Times the generators on this machine one after another, and writes table, plot and results."""
    points: list[Point] = []
    for folder in made:
        figures = json.loads((folder / FIGURES).read_text(encoding="utf-8"))
        points.append({**figures, "cubes_per_second": _speed(folder / GENERATOR, params.timed)})
    home.mkdir(parents=True, exist_ok=True)
    with (home / "grid.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(points[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(points)
    names = [folder.name for folder in made]
    drawn = [measure for measure in MEASURES if any(point.get(measure) is not None for point in points)]
    fronts = {measure: [names[place] for place in front(points, measure)] for measure in drawn}
    results = {
        "enabled": True,
        "points": dict(zip(names, points, strict=True)),
        "fronts": fronts,
        "pictures": {"pareto": plot(points, drawn, home / "pareto.png")},
    }
    write_results(home / RESULTS, results)
    return {"enabled": True, "points": len(points), **{f"best_{measure}": fronts[measure][-1] for measure in drawn}}


def _speed(generator: Path, count: int) -> float:
    """Cubes drawn in a second, all at once: the fastest of three drawings, after one that is not timed."""
    pipeline = CubePipeline.from_pretrained(generator).to(device())
    pipeline(seeds=range(count), batch_size=count)
    taken = []
    for _ in range(_TIMINGS):
        began = time.perf_counter()
        # What it returns lies in main memory, so the device has ended its work.
        pipeline(seeds=range(count), batch_size=count)
        taken.append(time.perf_counter() - began)
    return count / min(taken)
