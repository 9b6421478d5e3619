"""Which figures stand in which table of the page of vessel maps, and what each of them means to a reader."""

from components.report.figures import Results, find
from components.report.layout import Line, Table, effect, words

_KINDS = {"artery": "arteries", "vein": "veins"}
# Of each kind; docs/vessel_map.md has the definitions.
_ANATOMY = {
    "density": "share of the field of view",
    "calibre": "mean width, pixels",
    "tortuosity": "arc over chord; 1 is straight",
    "fractal_dimension": "box counting on centre lines",
    "branching_angle": "degrees, at junctions of three",
    "murray_exponent": "of calibres at junctions",
    "fragments": "pieces that do not touch",
    "loops": "holes",
    "arcade_angle": "degrees, about the disc",
}
_OF_BOTH = {
    "calibre_ratio": ("Calibre, arteries over veins", "ratio of the mean widths"),
    "arteriole_venule_ratio": ("Arteriole-venule ratio", "of the six widest near the disc (Knudtson et al. 2003)"),
}
_COMPARED = {
    "synthetic": "mean, drawn",
    "real": "mean, real test eyes",
    "distance": "distance, drawn",
    "floor": "distance, further real eyes",
}
_AGREEMENT = {
    "dice": ("Dice of vessels", "twice the overlap over both areas"),
    "cl_dice": ("Centre-line Dice", "the same on centre lines: thin vessels count as much as wide ones"),
    "auc": ("AUC", "vessel or not, pixel by pixel; 0.5 is guessing"),
    "artery_dice": ("Dice of arteries", "where the map tells the kinds"),
    "vein_dice": ("Dice of veins", "likewise"),
    "kind_accuracy": ("Right kind", "share of the found vessel pixels; crossings left out"),
}
_SHARE = (0.0, 1.0)
_OTHERS = {"synthetic": "drawn", "floor": "further real eyes", "closed_form": "the painter's closed form alone"}


def judgement(results: Results) -> tuple[Table, ...]:
    """Tables of ``judge_vessels``; realism has a column for each generator that was compared."""
    return (
        Table(
            "Agreement: does a segmenter of real eyes find the vessels that were asked for?",
            ("drawn eyes", "real test eyes"),
            _agreement(("consistency.synthetic", "consistency.real")),
        ),
        *(_realism(space, results["realism"][space]) for space in results["realism"]),
        _anatomy("masks", "Anatomy of the masks"),
        _anatomy("photographs", "Anatomy of what the segmenter finds on the photographs"),
    )


def _agreement(paths: tuple[str, ...], scale: tuple[float, float] | None = _SHARE) -> tuple[Line, ...]:
    return tuple(
        Line(name, means, tuple(f"{path}.{key}" for path in paths), scale=scale)
        for key, (name, means) in _AGREEMENT.items()
    )


def _realism(space: str, found: Results) -> Table:
    distances = {
        "frechet": ("FID", "Fréchet distance in the feature space; real eyes do not reach zero either"),
        "kernel": ("KID", "kernel distance, which does not depend on the number of images"),
    }
    return Table(
        f"Realism: how close to unseen real eyes? Features: {words(space)}",
        tuple(_OTHERS.get(name, words(name)) for name in found),
        tuple(
            Line(title, means, tuple(f"realism.{space}.{name}.{key}" for name in found))
            for key, (title, means) in distances.items()
        ),
    )


def _anatomy(of: str, title: str) -> Table:
    named = {
        f"{kind}_{figure}": (f"{words(figure)}, {plural}", means)
        for figure, means in _ANATOMY.items()
        for kind, plural in _KINDS.items()
    }
    return Table(
        f"{title}; distances: Wasserstein-1 in standard deviations of real eyes",
        tuple(_COMPARED.values()),
        tuple(
            Line(name, means, tuple(f"{of}.{figure}.{part}" for part in _COMPARED))
            for figure, (name, means) in (named | _OF_BOTH).items()
        ),
    )


def segmenter(results: Results) -> tuple[Table, ...]:
    """The table of ``segment_vessels``, with a column for each set of real eyes."""
    return (
        Table(
            "The segmenter on real test eyes: the best that agreement can be",
            tuple(_set_words(name) for name in results),
            _agreement(tuple(f"{name}.figures" for name in results)),
        ),
    )


def use(results: Results) -> tuple[Table, ...]:
    """Tables of ``use_vessels``: for each set of real eyes, figures by training set and differences to real eyes."""
    tables = []
    for judged in (name for name in results if name != "eyes"):
        found = results[judged]
        for part, says, scale in (
            ("figures", "", _SHARE),
            ("difference", ": difference to real eyes alone, above zero it helps", None),
        ):
            lines = _agreement(tuple(f"{judged}.{part}.{arm}" for arm in found[part]), scale)
            tables.append(
                Table(f"Trained on …, judged on {_set_words(judged)}{says}", _arms(found[part], results), lines)
            )
    return tuple(tables)


def _set_words(name: str) -> str:
    return {"test": "the cohort's test eyes", "cohort": "the cohort's test eyes"}.get(name, f"eyes of {words(name)}")


def _arms(arms: Results, results: Results) -> tuple[str, ...]:
    counts = results["eyes"]
    return tuple(f"{_arm(arm)} ({counts[arm]['real']} + {counts[arm]['synthetic']})" for arm in arms)


def _arm(name: str) -> str:
    """A training set of ``use_vessels``, whose names say drawn eyes per hundred real ones."""
    alone = {"real": "real eyes alone", "synthetic": "drawn eyes alone"}
    return alone.get(name) or f"real eyes and {name.removeprefix('real_plus_')} drawn ones for each 100"


def conclusion(results: Results) -> list[str]:
    """Whether drawn eyes helped to segment the cohort's test eyes, for the summary."""
    return [
        sentence
        for arm in results["test"]["difference"]
        for sentence in effect(
            f"A vessel segmenter trained on {_arm(arm)}",
            "its Dice",
            find(results, f"test.difference.{arm}.dice"),
        )
    ]
