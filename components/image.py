"""The container image of the Kubeflow components: ``RETINALOGOS_IMAGE``, or the one named in infra/images.yaml."""

import os
import re

import yaml

from components import ROOT
from retinalogos.errors import UsageError

VARIABLE = "RETINALOGOS_IMAGE"
_BY_DIGEST = re.compile(r"[\w.\-/:]+@sha256:[0-9a-f]{64}")
_NONE_YET = "@sha256:" + 64 * "0"


def image() -> str:
    """Reference of the image, by digest.

    Raises:
        UsageError: it is named by a tag, which may come to mean another image.
    """
    reference: str = (
        os.environ.get(VARIABLE) or yaml.safe_load((ROOT / "infra" / "images.yaml").read_text())["retinalogos"]
    )
    if not _BY_DIGEST.fullmatch(reference):
        raise UsageError(
            f"image {reference!r} is not named by digest (NAME@sha256:…): a tag may come to mean other code"
        )
    return reference


def is_published(reference: str) -> bool:
    """Whether the reference names an image at all, or is the placeholder of infra/images.yaml."""
    return not reference.endswith(_NONE_YET)
