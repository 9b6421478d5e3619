"""What the step ``ingest_cubes`` takes and gives."""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from components.step import Params, Port, Step, later

Share = Annotated[float, Field(ge=0, le=1)]


class IngestCubesParams(Params):
    """Parameters of ``ingest_cubes``."""

    reader: Literal["phantom", "cubes"] = Field(description="drawn eyes, or files: ENVI, TIFF, HDF5, NumPy")
    source: Annotated[str | None, Field(exclude=True, description="cubes: folder of the files")]
    mapping: Annotated[str | None, Field(exclude=True, description="cubes: CSV with file, patient, eye, age, sex")]
    source_fingerprint: str | None
    wavelengths: Annotated[list[float], Field(min_length=1)] | None = Field(
        description="nm, ascending, of the bands that every cube must have; null: what most of the first cubes name"
    )
    size: int = Field(ge=16, le=4096, description="side of the stored square, pixels")
    n: Annotated[int, Field(ge=1)] | None = Field(description="eyes to draw, or cubes to read at most; null: all")
    seed: int
    electrons: float = Field(gt=0, description="phantom: collected by a pixel of a band's mean reflectance")
    jitter: float = Field(ge=0, description="phantom: pixels by which bands lie beside each other")
    marker_share: Share = Field(description="phantom: share of the patients with the planted marker")
    marker_strength: Share = Field(description="phantom: light at 450 nm that the planted marker takes beside vessels")
    most_shift: float = Field(gt=0, description="cubes: pixels of shift between bands from which a cube is quarantined")
    train: Share
    validation: Share
    test: Share
    quarantine_share: Share
    jpeg_quality: int = Field(ge=50, le=100, description="of the rendering in colour")
    near_distance: int = Field(ge=0, le=256, description="bits of the perceptual hash within which two are one picture")
    workers: int = Field(ge=0, description="processes; 0: one for each core")

    @model_validator(mode="after")
    def _readers_have_what_they_need(self) -> Self:
        if self.reader == "cubes" and self.source is None:
            raise ValueError("reader 'cubes' needs the folder of the files: set `source`")
        if self.reader == "phantom" and (self.n is None or self.wavelengths is None):
            raise ValueError("reader 'phantom' draws `n` cubes of `wavelengths`: set both")
        if any(b <= a for a, b in pairwise(self.wavelengths or ())):
            raise ValueError("wavelengths must ascend")
        return self


STEP = Step(
    name="ingest_cubes",
    summary="reads or draws hyperspectral cubes, quarantines bad ones, splits by patient",
    params=IngestCubesParams,
    run=later("components.ingest_cubes.run"),
    outputs={"cohort": Port("cohort with the column `cube`, cohort.json, quarantine.csv", "Dataset")},
)
