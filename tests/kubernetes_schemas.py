"""Whether a manifest is one: Kubernetes' own schemas, strict, and small ones in tests/crds for resources of others."""

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

# Of the versions that clouds run, one of the older: what it knows the newer know too.
STRICT = files("kubernetes_validate") / "kubernetes-json-schema" / "v1.33.0-local-strict"
OWN = Path(__file__).parent / "crds"


@cache
def _registry() -> Registry[Any]:
    definitions = DRAFT202012.create_resource(json.loads((STRICT / "_definitions.json").read_text()))
    return Registry().with_resource("/api/_definitions.json", definitions).crawl()


@cache
def _validator(kind: str, api: str) -> Draft202012Validator:
    own = OWN / f"{kind.lower()}.yaml"
    # As the package names its files: rbac.authorization.k8s.io/v1 → rbac-v1.
    group, _, version = api.rpartition("/")
    theirs = STRICT / f"{'-'.join(filter(None, [kind.lower(), group.partition('.')[0], version]))}.json"
    schema = yaml.safe_load(own.read_text()) if own.is_file() else json.loads(theirs.read_text())
    return Draft202012Validator(schema, registry=_registry())


def complaints(resource: dict[str, Any]) -> list[str]:
    """What is wrong with a resource; each with its place in it."""
    validator = _validator(resource["kind"], resource["apiVersion"])
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(resource)]
