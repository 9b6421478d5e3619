"""Readers: one per data set, each a function ``read(source)`` that yields records in a fixed order."""

import difflib
from collections.abc import Iterator
from importlib import import_module

from retinalogos.cohort.readers.record import Drawing, Layer, Record, Source
from retinalogos.errors import UsageError

# Name of a reader → what it reads.
READERS: dict[str, str] = {
    "aptos2019": "APTOS 2019: ICDR grade",
    "brset": "BRSET: both eyes, age, sex, ICDR grade, findings",
    "ddr_seg": "DDR lesion segmentation: lesion maps, ICDR grade",
    "drishti_gs": "Drishti-GS1: glaucoma, cup-to-disc ratio, disc and cup maps",
    "drive": "DRIVE: vessel and field-of-view maps",
    "eyepacs": "EyePACS (Kaggle 2015): both eyes, ICDR grade",
    "fgadr": "FGADR Seg-set: lesion maps, ICDR grade",
    "fives": "FIVES: vessel maps; macular degeneration, diabetic retinopathy, glaucoma, normal",
    "hei_med": "HEI-MED: exudate maps, age, sex",
    "hrf": "HRF: healthy, diabetic retinopathy, glaucoma; artery and vein maps",
    "idrid_seg": "IDRiD segmentation: lesion and disc maps",
    "inspire_avr": "INSPIRE-AVR: disc-centred photographs",
    "les_av": "LES-AV: artery and vein and field-of-view maps",
    "messidor2": "Messidor-2 with adjudicated grades: ICDR grade, macular oedema",
    "odir5k": "ODIR-5K: both eyes, age, sex, diagnostic keywords per eye",
    "papila": "PAPILA: both eyes, age, sex, glaucoma, clinical data",
    "phantom": "digital fundus phantom: drawn eyes whose every attribute is known",
    "refuge2": "REFUGE2: glaucoma, disc and cup maps",
    "retinal_lesions": "Retinal-Lesions: eye, lesion maps, ICDR grade",
    "rfmid": "RFMiD: 45 classes of disease",
    "rite": "RITE: artery and vein maps of DRIVE",
    "srahim_dr": "SRahimDR: both eyes, ICDR grade, maculopathy",
    "stare": "STARE: vessel and field-of-view maps, diagnoses",
    "table": "any CSV with an image folder, by a column mapping in YAML",
}
# The same of hyperspectral cubes, which have a step of their own.
CUBE_READERS: dict[str, str] = {
    "cubes": "a folder of cubes: ENVI, multi-page TIFF, HDF5, NumPy",
    "phantom": "digital fundus phantom: drawn eyes as cubes",
}


def read(reader: str, source: Source) -> Iterator[Record]:
    """Records of a data set, in the order of the source.

    Args:
        reader: one of :data:`READERS`.
        source: where to read from.

    Raises:
        UsageError: there is no such reader, or the folder is missing.
        DataError: a table of the source is not as published; the message names file, row and column.
    """
    if reader not in READERS:
        near = difflib.get_close_matches(reader, READERS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"there is no reader {reader!r}{hint}; known are {', '.join(sorted(READERS))}")
    if reader != "phantom":
        if source.folder is None:
            raise UsageError(f"reader {reader!r} needs the folder of the data set: set `source`")
        if not source.folder.is_dir():
            raise UsageError(f"{source.folder} is not a folder: set `source` to the folder of the data set")
    return import_module(f"retinalogos.cohort.readers.{reader}").read(source)


__all__ = ["CUBE_READERS", "READERS", "Drawing", "Layer", "Record", "Source", "read"]
