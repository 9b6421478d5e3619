"""Pictures of a cube: single bands in grey, and a film that sweeps through them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from retinalogos.figures import REAL, SYNTHETIC, save
from retinalogos.provenance import NOTICE, software

# Side of the frames of a film; small cubes are enlarged without smoothing, so that a pixel stays one.
_FRAME = 256


def band_pictures(values: np.ndarray) -> list[np.ndarray]:
    """Each band of a cube (bands × height × width) in grey, uint8 height × width × 3, as bright as it can be shown."""
    pictures = []
    for band in values:
        # A black band stays black, whether the values are reflectance or its 65535ths.
        top = max(float(np.quantile(band, 0.995)), 1e-6)
        grey = np.clip(255 * band.astype(np.float32) / top, 0, 255).astype(np.uint8)
        pictures.append(np.repeat(grey[..., None], 3, 2))
    return pictures


def write_sweep(
    path: Path,
    pictures: Sequence[np.ndarray],
    wavelengths: Sequence[float],
    milliseconds: int,
    notice: str = NOTICE,
) -> None:
    """Writes a GIF that goes through the bands and back, each with its wavelength.

    Args:
        path: of the GIF.
        pictures: uint8, height × width × 3, one for each band.
        wavelengths: nm.
        milliseconds: that a band is shown.
        notice: what the file says of itself; by default that it is synthetic.
    """
    frames = []
    font = ImageFont.load_default(14)
    for picture, nm in zip(pictures, wavelengths, strict=True):
        image = Image.fromarray(picture)
        times = max(1, _FRAME // image.height)
        image = image.resize((times * image.width, times * image.height), Image.Resampling.NEAREST)
        ImageDraw.Draw(image).text((4, 2), f"{nm:g} nm", fill=(255, 255, 255), font=font)
        frames.append(image)
    sweep = frames + frames[-2:0:-1]
    comment = f"{software()}. {notice}".encode()
    sweep[0].save(path, save_all=True, append_images=sweep[1:], duration=milliseconds, loop=0, comment=comment)


def draw_spectra(
    path: Path, cubes: Mapping[str, tuple[np.ndarray, Sequence[float]]], points: Sequence[Sequence[float]]
) -> None:
    """Draws the spectra of one cube or two at points.

    Args:
        path: of the PNG.
        cubes: reflectance (bands × height × width) and wavelengths (nm) by name.
        points: x and y as shares of width and height.
    """
    figure = Figure(figsize=(4.2 * len(points), 3.2), layout="constrained")
    axes = figure.subplots(1, len(points), squeeze=False)
    for axis, (x, y) in zip(axes[0], points, strict=True):
        for colour, (name, (reflectance, wavelengths)) in zip((REAL, SYNTHETIC), cubes.items(), strict=False):
            row, column = (min(int(s * n), n - 1) for s, n in zip((y, x), reflectance.shape[1:], strict=True))
            axis.plot(wavelengths, reflectance[:, row, column], marker=".", color=colour, label=name)
        axis.set(title=f"at {x:g}, {y:g}", xlabel="wavelength, nm", ylabel="reflectance")
        axis.legend(frameon=False, fontsize="small")
    save(figure, path)
