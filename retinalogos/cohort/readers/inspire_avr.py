"""INSPIRE-AVR, 40 disc-centred eyes: Niemeijer et al., IEEE TMI 2011, 30(11):1941."""

from collections.abc import Iterator

from retinalogos.cohort.readers.files import images_by_stem
from retinalogos.cohort.readers.record import Record, Source
from retinalogos.errors import UsageError


def read(source: Source) -> Iterator[Record]:
    """Reads the photographs, ``INSPIRE-AVR/org/*.jpg``.

    Arteries and veins are published as centre lines alone, which say nothing of a vessel's width: they are no vessel
    maps, and the eyes come without.
    """
    assert source.folder is not None
    places = (source.folder / "INSPIRE-AVR" / "org", source.folder / "org")
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise UsageError(f"{places[1]} is missing: `source` is the unpacked INSPIRE-AVR.zip")
    for image in images_by_stem(folder).values():
        yield Record(image=image, source="inspire_avr", licence="research use only, no redistribution")
