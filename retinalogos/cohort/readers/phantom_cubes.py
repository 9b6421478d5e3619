"""The digital fundus phantom as hyperspectral cubes, drawn by the workers."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from retinalogos.cohort.readers.cubes import drawing
from retinalogos.cohort.readers.record import Drawing, Record
from retinalogos.cohort.schema import MAPS
from retinalogos.phantom import PhantomRecord, sample_records
from retinalogos.phantom.cubes import Camera, draw_cube, saturations


@dataclass(frozen=True)
class DrawCube:
    """Draws one cube when it is called, so that only its parameters travel to a worker."""

    record: PhantomRecord
    size: int
    wavelengths: tuple[float, ...]
    camera: Camera
    marker: float

    def __call__(self) -> Drawing:
        """Picture, truth maps and cube, size × size."""
        drawn = draw_cube(self.record, self.size, self.wavelengths, self.camera, self.marker)
        maps = {name: getattr(drawn.eye, name) for name in MAPS}
        return drawing(drawn.reflectance, self.wavelengths, maps)


def read(
    n: int,
    seed: int,
    size: int,
    wavelengths: tuple[float, ...],
    camera: Camera,
    marker_share: float,
    marker_strength: float,
) -> Iterator[Record]:
    """``n`` eyes; patients with the planted marker are chosen by the seed and bear it in both eyes.

    Args:
        n: eyes.
        seed: of everything.
        size: pixels.
        wavelengths: nm.
        camera: what the camera adds.
        marker_share: share of the patients with the planted marker, 0-1.
        marker_strength: see :func:`~retinalogos.phantom.cubes.draw_cube`.
    """
    for record in sample_records(n, seed):
        row = record.cohort_row()
        ticket = np.random.default_rng([seed, int(record.patient_id.rsplit("-", 1)[-1]), 7]).random()
        planted = bool(ticket < marker_share)
        artery, vein = saturations(record)
        truth = json.loads(row["truth"]) | {"artery_saturation": artery, "vein_saturation": vein}
        yield Record(
            image=DrawCube(record, size, wavelengths, camera, marker_strength if planted else 0.0),
            source="phantom_cubes",
            patient=row["patient_id"],
            eye=row["eye"],
            age=row["age"],
            sex=row["sex"],
            dr_grade=row["dr_grade"],
            dme=row["dme"],
            glaucoma=row["glaucoma"],
            vcdr=row["vcdr"],
            findings=tuple(row["findings"]),
            labels={"planted_marker": planted},
            licence="Apache-2.0",
            truth=json.dumps(truth | {"planted_marker": planted}),
        )
