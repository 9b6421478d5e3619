"""The container images of the steps: ``RETINALOGOS_IMAGE`` for all of them, or those named in infra/images.yaml.

    python -m components.image record REFERENCE…

puts the digests of what was published into infra/images.yaml, and where Kubernetes' manifests have them from;
`make image-lock` calls it.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Literal

import yaml

from components import ROOT
from retinalogos.errors import UsageError

VARIABLE = "RETINALOGOS_IMAGE"
Target = Literal["client", "cpu", "gpu"]
_BY_DIGEST = re.compile(r"[\w.\-/:]+@sha256:[0-9a-f]{64}")
_NONE_YET = "@sha256:" + 64 * "0"
_NAMES = ROOT / "infra" / "images.yaml"
_MANIFESTS = ROOT / "infra" / "kubernetes" / "images" / "kustomization.yaml"
_NOTE = "# Written by `make image-lock` from infra/images.yaml.\n"


def image(target: Target = "gpu") -> str:
    """Reference of an image, by digest.

    Args:
        target: of infra/docker/Dockerfile; every step runs in `gpu`, with an accelerator or without.

    Raises:
        UsageError: it is named by a tag, which may come to mean another image.
    """
    reference: str = os.environ.get(VARIABLE) or named()[target]
    if not _BY_DIGEST.fullmatch(reference):
        raise UsageError(
            f"image {reference!r} is not named by digest (NAME@sha256:…): a tag may come to mean other code"
        )
    return reference


def is_published(reference: str) -> bool:
    """Whether the reference names an image at all, or is the placeholder of infra/images.yaml."""
    return not reference.endswith(_NONE_YET)


def named() -> dict[Target, str]:
    """The references of infra/images.yaml by target."""
    names: dict[Target, str] = yaml.safe_load(_NAMES.read_text(encoding="utf-8"))
    return names


def record(references: Sequence[str]) -> None:
    """Puts references, all by digest, into infra/images.yaml and what is written from it.

    Raises:
        UsageError: one is not by digest, or its name does not end in ``-<target>``.
    """
    names = named()
    for reference in references:
        target = reference.partition("@")[0].rpartition("-")[2]
        if target not in names or not _BY_DIGEST.fullmatch(reference):
            raise UsageError(f"{reference!r} should be …-TARGET@sha256:…, TARGET one of {', '.join(names)}")
        names[target] = reference
    head = "".join(line for line in _NAMES.read_text(encoding="utf-8").splitlines(True) if line.startswith("#"))
    _NAMES.write_text(head + yaml.safe_dump(names, width=1000), encoding="utf-8")
    _MANIFESTS.write_text(manifest_images(names), encoding="utf-8")


def manifest_images(names: Mapping[Target, str]) -> str:
    """The component of Kustomize that gives the images of the manifests their names and digests."""
    images = []
    for target, reference in names.items():
        name, _, digest = reference.partition("@")
        images.append({"name": f"retinalogos-{target}", "newName": name, "digest": digest})
    component = {"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component", "images": images}
    return _NOTE + yaml.safe_dump(component, sort_keys=False, width=1000)


def main(arguments: Sequence[str]) -> int:
    """Runs the command line and returns the exit code."""
    try:
        if len(arguments) < 2 or arguments[0] != "record":
            raise UsageError("usage: python -m components.image record REFERENCE…")
        record(arguments[1:])
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
