"""Which figures stand in which table of the page on cubes, and what each of them means to a reader."""

from components.report.figures import Results, find
from components.report.layout import Line, Table, effect

SECTIONS = (
    ("summary", "Summary"),
    ("pictures", "Pictures"),
    ("judgement", "Judgement"),
    ("use", "Use"),
    ("training", "Training"),
    ("search", "Search"),
    ("cohort", "Cohort"),
    ("provenance", "Provenance"),
)

# What the pictures of `judge_cubes` show.
PICTURES = {
    "colour": "In colour, as the eye sees them: held-out real cubes above, synthetic ones below; nobody chose them.",
    "sweep": "The bands one after another: left a real cube, right a synthetic one; each as bright as can be shown.",
    "bands": "Single bands of the same two cubes.",
    "points": "Spectra of the same two cubes at points, as shares of width and height.",
    "spectra": "Spectra of the structures, mean over a cube: median and middle two thirds of the cubes.",
}
# Charts of the stages that train: title → curve → its name in the log.
DIFFUSION_CHARTS = {"loss": {"training": "loss", "validation": "validation_loss"}}
AUTOENCODER_CHARTS = {
    **DIFFUSION_CHARTS,
    "perplexity of the codes": {"perplexity": "perplexity"},
    "share of the codes in use": {"validation": "codes_used"},
    "signal-to-noise ratio, dB": {"validation": "psnr"},
}
_STRUCTURES = {"arteries": "arteries", "veins": "veins", "nerve_head": "optic nerve head"}


def _line(name: str, key: str, means: str, percent: bool = False) -> Line:
    return Line(name, means, (f"{key}.synthetic", f"{key}.real"), percent)


_COLUMNS = ("synthetic", "other real cubes")
JUDGEMENT = (
    Table(
        "Realism: how close to real cubes?",
        _COLUMNS,
        (
            _line(
                "Hyperspectral FID, structures",
                "fid_structures",
                "Fréchet distance of all bands, in the network that finds vessels and nerve head; lower is closer",
            ),
            _line(
                "Hyperspectral FID, random convolutions",
                "fid_random_conv",
                "the same in a network that was not trained",
            ),
            _line("Correlation of the bands", "band_correlation_gap", "mean absolute difference; 0 is equal"),
        ),
    ),
    Table(
        "Spectra: have the structures the spectra of real ones?",
        _COLUMNS,
        (
            *(
                _line(
                    f"Spectral divergence, {words}", f"divergence_{key}", "nats, mean over the bands; lower is closer"
                )
                for key, words in _STRUCTURES.items()
            ),
            *(
                _line(f"Spectral angle, {words}", f"angle_{key}", "radians between mean spectra; 0 is the same shape")
                for key, words in _STRUCTURES.items()
            ),
            *(
                _line(
                    f"Oxygen saturation, {key}",
                    f"saturation_{key}",
                    "recovered from the spectra; to be held against the real cubes beside it",
                    percent=True,
                )
                for key in ("arteries", "veins")
            ),
        ),
    ),
    Table(
        "Diversity and copies",
        _COLUMNS,
        (
            _line("|ΔMS-SSIM|", "ms_ssim_gap", "how much more, or less, two cubes of a set look alike; 0 is best"),
            _line(
                "Authentic cubes",
                "authentic",
                "no nearer to a training cube than that one's own nearest; a generator that copies has few",
                percent=True,
            ),
        ),
    ),
    Table(
        "Autoencoders: how held-out cubes are rebuilt",
        ("VQ-GAN", "VQ-VAE, no adversary", "difference"),
        tuple(
            Line(name, means, (f"autoencoder.{key}", f"baseline.{key}", f"against_baseline.{key}"))
            for name, key, means in (
                ("Signal-to-noise ratio", "psnr", "dB; higher is closer, and noise cannot be rebuilt"),
                ("Spectral angle", "spectral_angle", "radians, mean over the pixels of the fundus"),
                ("Fréchet distance", "frechet", "of rebuilt from real cubes, mean over random convolutions"),
            )
        ),
    ),
)

_ARMS = ("none", "real", "synthetic", "both", "contrasts")
USE = (
    Table(
        "Telling the labelled cubes from few labels, after pre-training on …, or by contrasts that need no training",
        _ARMS,
        (
            Line(
                "AUC", "on real test cubes, mean over the seeds; 0.5 is guessing", tuple(f"{arm}.auc" for arm in _ARMS)
            ),
            Line("Gain", "above no pre-training, same cubes", tuple(f"{arm}.gain" for arm in _ARMS)),
            Line(
                "AUC, every label",
                "the same with the labels of all training cubes: what the task allows",
                tuple(f"{arm}.auc_every_label" for arm in _ARMS),
            ),
        ),
    ),
)


def conclusion(use: Results) -> list[str]:
    """Whether pre-training on synthetic cubes helped, for the summary; nothing where it was not measured."""
    arms = {"synthetic": "synthetic cubes alone", "both": "real and synthetic cubes"}
    return [
        sentence
        for arm, words in arms.items()
        for sentence in effect(f"Pre-training on {words}", "the AUC", find(use, f"{arm}.gain"))
    ]
