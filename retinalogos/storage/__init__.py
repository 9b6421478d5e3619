"""Folders in an object store that speaks S3, published and fetched whole: see ``publication.py``."""

from retinalogos.storage.note import follow, weights_of, write_note
from retinalogos.storage.publication import Version, fetch, fetch_cached, publish, versions

__all__ = ["Version", "fetch", "fetch_cached", "follow", "publish", "versions", "weights_of", "write_note"]
