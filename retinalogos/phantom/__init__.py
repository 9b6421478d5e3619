"""A digital fundus phantom: eyes drawn from records, with every attribute known exactly."""

from retinalogos.phantom.draw import PhantomEye, draw
from retinalogos.phantom.lesions import LESION_CLASSES
from retinalogos.phantom.measure import measure
from retinalogos.phantom.records import PhantomRecord, sample_records

__all__ = ["LESION_CLASSES", "PhantomEye", "PhantomRecord", "draw", "measure", "sample_records"]
