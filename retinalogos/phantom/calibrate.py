"""Fits ``measure``'s estimators to phantom eyes: ``python -m retinalogos.phantom.calibrate`` writes calibration.npz.

Every calibration eye serves twice: as drawn, and blurred (some also halved in resolution), because generated pictures
are softer than drawn ones.
"""

from dataclasses import asdict

import cv2
import numpy as np
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from retinalogos.phantom.draw import draw
from retinalogos.phantom.geometry import FIELD_MM
from retinalogos.phantom.lesions import LESION_CLASSES, lesion_loads
from retinalogos.phantom.measure import (
    CALIBRATION,
    COARSE,
    COLUMN,
    REGRESSIONS,
    ROW,
    SIZE,
    Regression,
    disc_patch,
    lesion_features,
    locate,
    spectrum,
    to_size,
    true_loads,
)
from retinalogos.phantom.records import sample_records
from retinalogos.progress import track

_EYES = 500
_SEED = 20_260_607  # no cohort's: its eyes are not those that are judged


def calibrate() -> dict[str, np.ndarray]:
    """The arrays of calibration.npz: the filters, and each regression's parts as ``<regression>_<part>``."""
    # Flatter than the cohort's mix, so that every grade and cup size weighs in the fits.
    records = sample_records(_EYES, _SEED, (0.30, 0.14, 0.20, 0.18, 0.18), (0.5, 0.2, 0.3))
    rng = np.random.default_rng(_SEED)
    drawn = [draw([record], SIZE)[0].image for record in track(records, "calibrate", unit="eye")]
    pictures = drawn + [_soften(image, rng) for image in drawn]
    mirror = np.array([-1.0 if record.eye == "right" else 1.0 for record in records])
    disc = _places(np.array([record.disc for record in records]), mirror)
    filters = _fit_filters(pictures, np.concatenate([disc, disc])).astype(np.complex64)
    fovea = _places(np.array([record.fovea for record in records]), mirror)
    fovea_filters = _fit_filters(pictures, np.concatenate([fovea, fovea])).astype(np.complex64)

    found = [locate(image, filters)[:2] for image in pictures]
    # Each disc twice, the second time off its place by the error of the search.
    patches = [disc_patch(image, x, y) for image, (x, y) in zip(pictures, found, strict=True)]
    shaken = np.array(found) + rng.normal(0, 0.006, (len(found), 2))
    patches += [disc_patch(image, x, y) for image, (x, y) in zip(pictures, shaken, strict=True)]
    features = np.stack([lesion_features(image, x, y) for image, (x, y) in zip(pictures, found, strict=True)])
    loads = np.array(
        [true_loads(dict(zip(LESION_CLASSES[1:], lesion_loads(record)[1], strict=True))) for record in records]
    )
    dark, bright = np.sqrt(np.tile(loads, (2, 1))).T
    # Hyperparameters: chosen on eyes of another seed.
    models = (
        _fit(np.stack(patches), np.tile([record.vcdr for record in records], 4), 60, SVR(C=1.0, epsilon=0.03)),
        _fit(features, dark, 40, SVR(C=0.3, epsilon=0.006, gamma=0.004)),
        _fit(features, bright, 40, SVR(C=0.3, epsilon=0.006, gamma=0.004)),
    )
    arrays = {"filters": filters, "fovea_filters": fovea_filters}
    for name, model in zip(REGRESSIONS, models, strict=True):
        arrays |= {f"{name}_{part}": value.astype(np.float32) for part, value in asdict(model).items()}
    return arrays


def _places(millimetres: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Places (n, 2) in the left-eye frame as fractions of the picture as it is displayed."""
    return np.asarray(0.5 + millimetres * np.stack([mirror, np.ones_like(mirror)], 1) / FIELD_MM)


def _fit(features: np.ndarray, target: np.ndarray, components: int, svr: SVR) -> Regression:
    """Standardises, projects on principal components, fits; folds the first two into one projection."""
    scaler = StandardScaler()
    pca = PCA(components, svd_solver="covariance_eigh")
    svr.fit(pca.fit_transform(scaler.fit_transform(features)), target)
    projection = pca.components_.T / scaler.scale_[:, None]
    offset = scaler.mean_ @ projection + pca.mean_ @ pca.components_.T
    constants = np.array([svr._gamma, svr.intercept_[0]])
    return Regression(projection, offset, svr.support_vectors_, svr.dual_coef_[0], constants)


def _soften(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A generator's softness: blur up to 1.6 px, and for some a detour over half the resolution."""
    sigma = rng.uniform(0.3, 1.6)
    image = cv2.GaussianBlur(image, (0, 0), sigma)
    return to_size(to_size(image, SIZE // 2), SIZE) if rng.random() < 0.3 else image


def _fit_filters(pictures: list[np.ndarray], disc: np.ndarray) -> np.ndarray:
    """Solves, frequency by frequency, for the channels' filters; each picture also serves mirrored."""
    rows, columns = COARSE, COARSE // 2 + 1
    gram = np.zeros((rows, columns, 4, 4), complex)
    cross = np.zeros((rows, columns, 4), complex)
    for image, (x, y) in zip(pictures, disc, strict=True):
        for picture, at in ((image, x), (image[:, ::-1], 1 - x)):
            channels = spectrum(picture)
            distance = (COLUMN + 0.5 - at * COARSE) ** 2 + (ROW + 0.5 - y * COARSE) ** 2
            peak = np.fft.rfft2(np.exp(-distance / (2 * 1.5**2)))
            gram += np.einsum("chw,dhw->hwcd", channels.conj(), channels)
            cross += np.einsum("chw,hw->hwc", channels.conj(), peak)
    ridge = 0.02 * np.trace(gram, axis1=2, axis2=3).real.mean() / 4
    return np.linalg.solve(gram + ridge * np.eye(4), cross[..., None])[..., 0]


if __name__ == "__main__":
    np.savez_compressed(CALIBRATION, **calibrate())  # type: ignore[arg-type]
