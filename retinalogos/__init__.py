"""RetinaLogos: from fundus photographs and clinical records to a text-to-fundus generator and its evidence."""

__version__ = "0.1.0"
