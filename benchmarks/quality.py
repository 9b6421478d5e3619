"""What the sampler's settings do to the pictures: realism and control against guidance, steps and solver, or generator.

    python -m benchmarks.quality --guidance 1 1.5 2 3 5 7
    python -m benchmarks.quality --steps 2 4 8 12 20 40 --solvers euler midpoint multistep splitting
    python -m benchmarks.quality --generators models/pretrained models/generator

Of a folder in which `make run` has ended (--run): each way draws the prompts of its synthetic cohort, with their seeds,
none left out, and is judged as its step `assess` does, all by one judge. The first line is the real-to-real floor:
training eyes against test eyes. Fréchet distances are to the test eyes, in the features of that judge: they compare
within one run of this command and with nothing else. The generator's own settings hold where none is given; --guidance
is varied at its own steps, --steps and --solvers (each with each) at its own guidance. The last column counts how often
the network was evaluated for a picture; guidance takes two of each. On photographs the grade is what
the judge sees (weighted kappa), on the phantom the rank correlation of the measured lesion load.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.figure import Figure

from components.assess.run import PHANTOM
from components.assess.step import AssessParams
from retinalogos.cohort.shards import Cohort, CohortWriter, encode_png
from retinalogos.contact_sheet import make_sheet
from retinalogos.figures import REAL, save
from retinalogos.generators.text import TextToFundusPipeline
from retinalogos.metrics import assessment
from retinalogos.metrics.features import COHORT, feature_space
from retinalogos.metrics.intervals import Estimate
from retinalogos.metrics.observation import Observed, fit_judge, measure_phantoms, observe
from retinalogos.progress import track

SHOWN = 8  # pictures of each way on the sheet: as many as a screen is wide
# What the curve shows of control: eyes seen as of the side asked for, and glaucoma.
CONTROL = (("eye", "accuracy"), ("glaucoma", "auc"))
BATCH = 24  # pictures drawn at a time, as augment.batch_size


@dataclass(frozen=True)
class Way:
    """A generator and how it is sampled: arguments of the pipeline's call."""

    name: str
    generator: Path
    call: dict[str, Any] = field(default_factory=dict)


def ways(options: argparse.Namespace) -> list[Way]:
    """Every generator as it is, then the curves of the last one."""
    found = [Way(str(generator), generator) for generator in options.generators]
    last = options.generators[-1]
    found += [Way(f"guidance {scale:g}", last, {"guidance": scale}) for scale in options.guidance]
    for solver in options.solvers or [None]:
        for steps in options.steps:
            found.append(Way(f"{steps} steps {solver or ''}".strip(), last, {"steps": steps, "solver": solver}))
    return found


def prompts(cohort: Cohort, most: int) -> list[dict[str, Any]]:
    """Rows of the synthetic cohort without their pictures: at most ``most``, evenly taken."""
    rows: list[dict[str, Any]] = cohort.table().to_pylist()
    return rows if len(rows) <= most else [rows[i * len(rows) // most] for i in range(most)]


def draw(way: Way, rows: list[dict[str, Any]], folder: Path) -> tuple[Cohort, list[np.ndarray], float]:
    """The cohort that this way draws, its first pictures, and how often the network was evaluated for each."""
    pipeline = TextToFundusPipeline.from_pretrained(way.generator)
    first: list[np.ndarray] = []
    evaluated: list[int] = []
    pipeline.backbone.register_forward_pre_hook(lambda _, inputs: evaluated.append(len(inputs[0])))
    with CohortWriter(folder, way.name) as writer:
        for start in track(range(0, len(rows), BATCH), way.name, unit="batch"):
            batch = rows[start : start + BATCH]
            images = pipeline([row["prompt"] for row in batch], seeds=[row["seed"] for row in batch], **way.call)
            first += list(images[: max(0, SHOWN - len(first))])
            for row, image in zip(batch, images, strict=True):
                picture = {"bytes": encode_png(image), "path": f"{row['image_id']}.png"}
                writer.add({**row, "image": picture, "width": image.shape[1], "height": image.shape[0]})
    return Cohort(folder), first, sum(evaluated) / len(rows)


def line(name: str, distance: Estimate, floor: float, seen: dict[str, Any], load: Estimate | None, cost: str) -> str:
    """A row of the table."""

    def shown(estimate: Estimate | None) -> str:
        return "" if estimate is None or np.isnan(estimate.value) else f"{estimate.value:.2f}"

    interval = "" if distance.low is None else f" ({distance.low:.2f} to {distance.high:.2f})"
    cells = [
        name,
        f"{distance.value:.2f}{interval}",
        f"{distance.value / floor:.1f}",
        shown(seen.get("eye", {}).get("accuracy")),
        shown(load if load is not None else seen.get("dr_grade", {}).get("kappa")),
        shown(seen.get("glaucoma", {}).get("auc")),
        cost,
    ]
    return "| " + " | ".join(cells) + " |"


@dataclass(frozen=True)
class Point:
    """What a way of a few-step curve came to."""

    solver: str
    evaluations: float
    distance: Estimate
    side: float
    glaucoma: float


def few_steps(points: list[Point], floor: float, path: Path) -> None:
    """Draws distance and control against evaluations of the network, a line a solver."""
    figure = Figure((9, 3.6), layout="constrained")
    realism, control = figure.subplots(1, 2)
    for solver in dict.fromkeys(point.solver for point in points):
        curve = [point for point in points if point.solver == solver]
        evaluations = [point.evaluations for point in curve]
        distances = [point.distance for point in curve]
        low = [each.value - (each.value if each.low is None else each.low) for each in distances]
        high = [(each.value if each.high is None else each.high) - each.value for each in distances]
        bars = realism.errorbar(
            evaluations, [each.value for each in distances], (low, high), marker="o", capsize=2, label=solver
        )
        colour = bars.lines[0].get_color()
        control.plot(evaluations, [point.side for point in curve], "o-", color=colour, label=f"{solver}: side")
        control.plot(evaluations, [point.glaucoma for point in curve], "s--", color=colour, label="glaucoma, AUC")
    realism.axhline(floor, color=REAL, label="real test eyes")
    realism.set_ylabel("FID to test eyes, 95 % intervals")
    control.set_ylabel("seen as asked for")
    for axes in (realism, control):
        axes.set_xscale("log", base=2)
        axes.set_xlabel("evaluations of the network for a picture")
        axes.legend(fontsize=7)
    realism.set_ylim(0)
    save(figure, path)


def compare(options: argparse.Namespace) -> Iterator[str]:
    """Lines of the table, each as soon as it is known."""
    root = options.run
    params = AssessParams.model_validate(yaml.safe_load((root / "run" / "params.yaml").read_text())["assess"])
    real = Cohort(root / "data" / "cohort")
    settings = assessment.Settings(**{name: getattr(params, name) for name in assessment.Settings.__annotations__})
    size = options.size or params.size
    judge = fit_judge(real, params.judge, size, params.judge_images, params.seed)
    space = feature_space(COHORT, params.seed, judge)
    measure = measure_phantoms if set(real.meta["sources"]) == {PHANTOM} else None

    def look(cohort: Cohort, split: str | None) -> Observed:
        return observe(cohort, split, size, [space], params.descriptor_side, judge, measure)

    def lesions(observed: Observed) -> Estimate | None:
        return assessment.measured(observed, settings)["lesion_load"] if measure else None

    train, test = look(real, "train"), look(real, "test")
    grade = "lesion load" if measure else "grade"
    yield f"| | FID to test eyes | times the floor | side | {grade} | glaucoma | evaluations |"
    yield "|---|---|---|---|---|---|---|"
    floor: Estimate | None = None
    images, labels = [], []
    points = []
    rows = prompts(Cohort(root / "data" / "synthetic"), options.images)
    for way in ways(options):
        with tempfile.TemporaryDirectory() as home:
            drawn, first, evaluations = draw(way, rows, Path(home))
            seen = look(drawn, None)
        distances = assessment.realism(test, seen, train, settings)["frechet"]
        if floor is None:
            floor = distances["floor"]
            eyes = assessment.judged(test, train.asked.codes, settings)
            yield line("real test eyes", floor, floor.value, eyes, lesions(test), "")
        told = assessment.judged(seen, None, settings)
        yield line(way.name, distances["synthetic"], floor.value, told, lesions(seen), f"{evaluations:g}")
        if solver := way.call.get("solver"):
            side, glaucoma = (told.get(task, {}).get(figure) for task, figure in CONTROL)
            values = [float("nan") if each is None else each.value for each in (side, glaucoma)]
            points.append(Point(solver, evaluations, distances["synthetic"], *values))
        images += first
        labels += [way.name] * len(first)
    if options.plot and floor:
        few_steps(points, floor.value, options.plot)
    if options.sheet:
        options.sheet.write_bytes(encode_png(make_sheet(images, labels, min(SHOWN, len(rows)))))


def main(arguments: list[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path(), help="folder of a finished run (default: here)")
    parser.add_argument("--generators", type=Path, nargs="+", help="folders (default: RUN/models/generator)")
    parser.add_argument("--guidance", type=float, nargs="*", default=[], help="scales of guidance")
    parser.add_argument("--steps", type=int, nargs="*", default=[], help="network evaluations")
    parser.add_argument("--solvers", nargs="*", default=[], help="euler, midpoint, …; with --steps")
    parser.add_argument("--images", type=int, default=240, help="pictures of each way at most (default: 240)")
    parser.add_argument("--size", type=int, help="pixels at which the judge looks (default: assess.size of the run)")
    parser.add_argument("--plot", type=Path, help="the curves of --steps with --solvers, as PNG")
    parser.add_argument("--sheet", type=Path, help="a row of pictures of each way, as PNG")
    options = parser.parse_args(arguments)
    if options.plot and not (options.steps and options.solvers):
        parser.error("--plot draws the curves of --steps with --solvers: give both")
    options.generators = options.generators or [options.run / "models" / "generator"]
    for text in compare(options):
        print(text, flush=True)


if __name__ == "__main__":
    main()
