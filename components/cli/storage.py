"""Folders in an object store: ``publish``, ``fetch``, ``versions``."""

import argparse
from pathlib import Path

from retinalogos.arguments import Commands

_STORE = """\
The store is any that speaks S3; boto3's usual settings say where it is and who asks:

  export AWS_ENDPOINT_URL=http://127.0.0.1:9000   # not for Amazon's own
  export AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…

"""

_PUBLISH = (
    """\
Sends a folder (a cohort, captions, checkpoints, a generator) to an object store as a new version of what is
published at the address. It is seen whole or not at all. What the store has already is not sent again: after a cut
connection, a kill or a full store, the same command goes on where it stopped.

"""
    + _STORE
    + """\
examples:
  retinalogos publish data/cohort s3://eyes/cohorts/odir5k
  retinalogos publish models/generator s3://eyes/models/retinalogos-text
"""
)

_FETCH = (
    """\
Fetches what was published at the address into a new folder: the current version, or the one that --sha256 names.
Every file is held against its hash, and the folder appears when all of them are right. The same command goes on
where an interrupted one stopped.

"""
    + _STORE
    + """\
examples:
  retinalogos fetch s3://eyes/cohorts/odir5k data/odir5k
  retinalogos fetch s3://eyes/models/retinalogos-text models/before --sha256 HASH
"""
)

_VERSIONS = (
    """\
Lists what was published at an address, the current version last. To go back to an older one, fetch it by its hash
and publish it again: nothing but its name is sent.

"""
    + _STORE
    + """\
example:
  retinalogos versions s3://eyes/models/retinalogos-text
"""
)


def add_commands(commands: Commands) -> None:
    """Adds `publish`, `fetch` and `versions`."""
    address = "address: s3://bucket/prefix"
    publish = commands.add_parser("publish", help="send a folder to an object store", description=_PUBLISH)
    publish.add_argument("folder", type=Path, metavar="FOLDER", help="what to send")
    publish.add_argument("address", metavar="ADDRESS", help=address)
    publish.set_defaults(run=_publish)
    fetch = commands.add_parser("fetch", help="fetch a published folder", description=_FETCH)
    fetch.add_argument("address", metavar="ADDRESS", help=address)
    fetch.add_argument("folder", type=Path, metavar="FOLDER", help="where it is to be; must not exist")
    fetch.add_argument("--sha256", metavar="HASH", help="version, see `retinalogos versions` (default: the current)")
    fetch.set_defaults(run=_fetch)
    versions = commands.add_parser("versions", help="list what is published", description=_VERSIONS)
    versions.add_argument("address", metavar="ADDRESS", help=address)
    versions.set_defaults(run=_versions)


def _publish(arguments: argparse.Namespace) -> None:
    from retinalogos.storage import publish

    version = publish(arguments.folder, arguments.address)
    print(f"{arguments.address} version {version.number}, sha256 {version.sha256}")


def _fetch(arguments: argparse.Namespace) -> None:
    from retinalogos.storage import fetch

    sha256 = fetch(arguments.address, arguments.folder, arguments.sha256)
    print(f"{arguments.folder} is {arguments.address}, sha256 {sha256}")


def _versions(arguments: argparse.Namespace) -> None:
    from retinalogos.storage import versions

    for version in versions(arguments.address):
        print(f"{version.number:8} {version.sha256}")
