"""The published search of the hyperspectral generator: compression × latent channels × base channels, on phantom cubes.

    python -m benchmarks.cube_grid --preset smoke --compression 4 --latent-channels 4 8 --base-channels 16
    python -m benchmarks.cube_grid --base-channels 32 64 128
    python -m benchmarks.cube_grid --preset paper --base-channels 128 256 512

Each point trains an autoencoder and a diffusion with the workflow's own stages and parameters, draws cubes and judges
them; autoencoders are shared by points that differ in base channels alone. What is there already is not made again, so
a search that was stopped goes on. Written to --out: ``grid.csv``, and ``pareto.png``: the hyperspectral FID against the
cubes drawn in a second, with the points that no other beats in both.
"""

import argparse
import csv
import itertools
import json
import time
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from components.runner import run_step
from pipelines.hyperspectral import NAME, STAGES
from pipelines.params import Choices, compose
from retinalogos.generators.hyperspectral.pipeline import CubePipeline
from retinalogos.training.device import device

METRIC = "fid_random_conv"
# As in the paper.
COMPRESSIONS, LATENT_CHANNELS = (4, 8, 16), (8, 32, 256)
# Cubes drawn to find the speed, after as many that are not counted.
TIMED = 8


def stage(name: str, values: dict[str, Any], inputs: dict[str, Path], home: Path) -> dict[str, Any]:
    """Metrics of a stage whose outputs lie in ``home``; it only runs where they do not."""
    step = next(entry for entry in STAGES if entry.name == name)
    metrics = home / f"{name}.json"
    if not metrics.exists():
        section = values[name] | ({"checkpoints": str(home / "work")} if "checkpoints" in values[name] else {})
        outputs = {port: home / port if port != "log" else home / f"{name}_log" for port in step.outputs}
        run_step(step.step, section, inputs, {**outputs, "metrics": metrics}, name)
    found: dict[str, Any] = json.loads(metrics.read_text())
    return found


def speed(generator: Path) -> float:
    """Cubes drawn in a second."""
    pipeline = CubePipeline.from_pretrained(generator).to(device())
    pipeline(seeds=range(TIMED))
    began = time.perf_counter()
    pipeline(seeds=range(TIMED))
    return TIMED / (time.perf_counter() - began)


def point(options: argparse.Namespace, compression: int, channels: int, base: int) -> dict[str, float]:
    """One point of the grid."""
    settings = (
        f"train_vqgan.autoencoder.compression={compression}",
        f"train_vqgan.autoencoder.latent_channels={channels}",
        f"train_cube_diffusion.diffusion.base_channels={base}",
        'judge_cubes.features=["random_conv"]',
        *options.settings,
    )
    values = compose(Choices(workflow=NAME, preset=options.preset, settings=settings))
    shared, trained = options.out / "cohort", options.out / f"f{compression}-c{channels}"
    own = trained / f"base{base}"
    stage("ingest", values, {}, shared)
    cohort = shared / "cohort"
    stage("train_vqgan", values, {"cohort": cohort}, trained)
    autoencoder = trained / "autoencoder"
    stage("train_cube_diffusion", values, {"cohort": cohort, "autoencoder": autoencoder}, own)
    stage("draw_synthetic_cubes", values, {"generator": own / "generator"}, own)
    inputs = {"cohort": cohort, "synthetic": own / "synthetic", "autoencoder": autoencoder}
    judged = stage("judge_cubes", values, inputs, own)
    return {
        "compression": compression,
        "latent_channels": channels,
        "base_channels": base,
        **{name: judged[name] for name in (METRIC, f"{METRIC}_low", f"{METRIC}_high", f"{METRIC}_real")},
        "autoencoder_psnr": judged["autoencoder_psnr"],
        "cubes_per_second": speed(own / "generator"),
    }


def front(points: list[dict[str, float]]) -> list[dict[str, float]]:
    """Points that no other beats in both quality and speed, the fastest first."""
    kept: list[dict[str, float]] = []
    for candidate in sorted(points, key=lambda p: (-p["cubes_per_second"], p[METRIC])):
        if not kept or candidate[METRIC] < kept[-1][METRIC]:
            kept.append(candidate)
    return kept


def plot(points: list[dict[str, float]], path: Path) -> None:
    """Draws quality against speed, and the front."""
    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axis = figure.subplots()
    for entry in points:
        axis.plot(entry["cubes_per_second"], entry[METRIC], "o", color="tab:blue")
        label = f"{entry['compression']}·{entry['latent_channels']}·{entry['base_channels']}"
        axis.annotate(label, (entry["cubes_per_second"], entry[METRIC]), fontsize="small", xytext=(4, 4),
                      textcoords="offset points")  # fmt: skip
    best = front(points)
    axis.plot(
        [p["cubes_per_second"] for p in best], [p[METRIC] for p in best], color="tab:orange", label="Pareto front"
    )
    axis.axhline(points[0][f"{METRIC}_real"], color="grey", linestyle=":", label="real against real")
    axis.set(xscale="log", xlabel="cubes drawn in a second", ylabel="hyperspectral FID (random convolutions)")
    axis.set_title("compression · latent channels · base channels", fontsize="small")
    axis.legend(frameon=False)
    figure.savefig(path)


def main(arguments: list[str] | None = None) -> None:
    """Runs the grid and writes its table and its plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="laptop", help="of the hyperspectral workflow (default: laptop)")
    parser.add_argument("--compression", type=int, nargs="+", default=COMPRESSIONS)
    parser.add_argument("--latent-channels", type=int, nargs="+", default=LATENT_CHANNELS)
    parser.add_argument("--base-channels", type=int, nargs="+", default=[32, 64], help="of the diffusion's U-Net")
    parser.add_argument("--settings", nargs="*", default=[], help="section.parameter=value, of all points")
    parser.add_argument("--out", type=Path, default=Path("run/cube_grid"))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    grid = itertools.product(options.compression, options.latent_channels, options.base_channels)
    points = [point(options, *cell) for cell in grid]
    with (options.out / "grid.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(points[0]))
        writer.writeheader()
        writer.writerows(points)
    plot(points, options.out / "pareto.png")
    for entry in front(points):
        print({name: round(value, 4) for name, value in entry.items()})


if __name__ == "__main__":
    main()
