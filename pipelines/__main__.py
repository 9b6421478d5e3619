"""Command line of the graphs: ``python -m pipelines --help`` names its commands."""

import argparse
import os
import shlex
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from components import ROOT, tracking
from pipelines.graph import MAIN
from pipelines.params import Choices, check_idle, last_choices, presets, write
from pipelines.workflows import PIPELINES, WORKFLOWS
from retinalogos.arguments import Parser
from retinalogos.errors import DataError, UsageError

if TYPE_CHECKING:
    from kfp.dsl.base_component import BaseComponent

EXAMPLES = textwrap.dedent(
    """\
    examples:
      python -m pipelines params --preset smoke
      python -m pipelines params --cohort odir5k --data DIR --set pretrain.steps=2000 --set seed=1
      python -m pipelines run-local --preset smoke
      python -m pipelines compile --out compiled --preset gpu --image registry.example/retinalogos@sha256:…
      python -m pipelines submit full --preset gpu --host http://localhost:8080 --pool train=h100x8 --wait
      python -m pipelines submit train --host http://localhost:8080 --in cohort=s3://b/cohort --in captions=s3://b/captions
      python -m pipelines export full --preset gpu --out full.yaml
      python -m pipelines diff old/full.yaml full.yaml

    exit code: 0 done, 1 a step failed, 2 wrong use (the reason stands in one line), 130 a run is no longer followed
    """
)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m pipelines",
        description="Composes the parameters of a run, compiles the pipelines, runs one here.",
        epilog=EXAMPLES,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    which = Parser(add_help=False)
    which.add_argument("--workflow", default=MAIN, choices=WORKFLOWS, help=f"default: {MAIN}")
    choices = Parser(add_help=False)
    choices.add_argument("--preset", default="laptop", help=f"one of {', '.join(presets())} (default: laptop)")
    choices.add_argument("--cohort", help="name of the data set's reader (default: the phantom)")
    choices.add_argument("--data", help="folder of the data set")
    choices.add_argument(
        "--set",
        dest="settings",
        metavar="SECTION.KEY=VALUE",
        action="append",
        default=[],
        help="a single parameter, its value as YAML",
    )
    choices.add_argument(
        "--settings",
        dest="several",
        default="",
        help="several at once, separated by spaces as in a shell: one with spaces is quoted",
    )
    commands.add_parser(
        "params", parents=[which, choices], help="choose the parameters of the next `dvc repro`: writes run/params.yaml"
    )
    commands.add_parser(
        "compose", parents=[which], help="write run/params.yaml again from the last choices; a stage of dvc.yaml"
    )
    given = Parser(add_help=False)
    given.add_argument(
        "--in",
        dest="given",
        metavar="NAME=ADDRESS",
        action="append",
        default=[],
        help="what the pipeline takes from elsewhere: cohort, captions or generator, as folder or s3://bucket/key",
    )
    local = commands.add_parser("run-local", parents=[choices, given], help="run a pipeline here, without a cluster")
    local.add_argument("pipeline", nargs="?", default="full", choices=PIPELINES, help="default: full")
    local.add_argument(
        "--out", type=Path, default=ROOT / "local_outputs", help="folder for the outputs (default: local_outputs)"
    )
    placed = Parser(add_help=False)
    placed.add_argument("--image", help="image of the steps, by digest (default: infra/images.yaml)")
    placed.add_argument(
        "--pool",
        dest="pools",
        metavar="STAGE=POOL",
        action="append",
        default=[],
        help="node pool of a stage or group of stages, by its name in infra/pools.yaml",
    )
    compile_ = commands.add_parser("compile", parents=[choices, placed], help="write the IR YAML of every pipeline")
    compile_.add_argument(
        "--workflow", choices=WORKFLOWS, help="only the pipelines of this one (default: of all that have the preset)"
    )
    compile_.add_argument("--out", type=Path, required=True, help="folder for PIPELINE.yaml")
    submit = commands.add_parser("submit", parents=[choices, placed, given], help="start a run on a Kubeflow server")
    submit.add_argument("pipeline", choices=PIPELINES)
    submit.add_argument("--host", required=True, help="address of the server; a token is taken from KFP_TOKEN")
    submit.add_argument("--namespace", help="of a server with several users")
    submit.add_argument("--name", help="of the run (default: pipeline and time)")
    submit.add_argument("--wait", action="store_true", help="follow the run; exit code 1 if it fails")
    export = commands.add_parser("export", parents=[choices, placed], help="write what `submit` would send")
    export.add_argument("pipeline", choices=PIPELINES)
    export.add_argument("--out", type=Path, required=True, help="file")
    export.add_argument(
        "--manifest", metavar="NAMESPACE", help="as Pipeline and PipelineVersion objects for `kubectl apply`"
    )
    diff = commands.add_parser("diff", help="what changed between two compiled pipelines, and which steps run again")
    diff.add_argument("old", type=Path)
    diff.add_argument("new", type=Path)
    commands.add_parser("dvc", help="write the dvc.yaml of each workflow from its graph")
    return parser


def _choices(options: argparse.Namespace) -> Choices:
    try:
        several = shlex.split(options.several)
    except ValueError as error:
        raise UsageError(f"settings {options.several!r}: {error}") from None
    settings = (*options.settings, *several)
    # A pipeline says itself whose it is.
    workflow = options.workflow if options.command == "params" else MAIN
    return Choices(
        workflow=workflow, preset=options.preset, cohort=options.cohort, data=options.data, settings=settings
    )


def _given(options: argparse.Namespace) -> dict[str, str]:
    """Addresses by name, all that the pipeline needs and no other."""
    pairs = [word.partition("=") for word in options.given]
    given = {name: address for name, _, address in pairs if address}
    wanted = PIPELINES[options.pipeline].given.keys()
    if len(given) < len(pairs) or given.keys() != wanted:
        words = " ".join(f"--in {name}=ADDRESS" for name in wanted) or "no --in"
        raise UsageError(f"pipeline {options.pipeline} takes {words}")
    return given


def _build(options: argparse.Namespace, names: Sequence[str]) -> Iterator[tuple[str, "BaseComponent"]]:
    """The pipelines of these names, as they run on a cluster."""
    from components import image

    if options.image:
        os.environ[image.VARIABLE] = options.image
    if not all(image.is_published(image.image(target)) for target in image.named()):
        if options.command == "submit":
            raise UsageError("infra/images.yaml names no published image: --image gives one, by digest")
        print("note: infra/images.yaml names no published image; --image gives one", file=sys.stderr)
    choices = _choices(options)
    from pipelines import cluster, pools
    from pipelines.kubeflow import build
    from pipelines.placement import Placement

    placement = Placement(cluster.read(), pools.choose(options.preset, options.pools))
    for name in names:
        spot = [stage.name for stage in PIPELINES[name].stages if placement.pools[stage.name][1].spot]
        if spot and placement.cluster.work.claim is None:
            print(
                f"note: {', '.join(spot)} of {name} may lose their nodes, and begin anew then: infra/cluster.yaml has "
                "no work.claim to keep checkpoints and captions on",
                file=sys.stderr,
            )
        yield name, build(PIPELINES[name], choices, placement)


def _compile(options: argparse.Namespace) -> None:
    from pipelines.kubeflow import write

    having = [name for name in WORKFLOWS if options.preset in presets(name)]
    # A preset that none has is refused when the first is composed.
    workflows = [options.workflow] if options.workflow else having or [MAIN]
    for name, built in _build(options, [name for name, each in PIPELINES.items() if each.workflow in workflows]):
        print(write(built, options.out / f"{name}.yaml"))


def _export(options: argparse.Namespace) -> None:
    from pipelines.kubeflow import write, write_objects

    ((_, built),) = _build(options, [options.pipeline])
    print(write_objects(built, options.out, options.manifest) if options.manifest else write(built, options.out))


def _submit(options: argparse.Namespace) -> int:
    from pipelines.kubeflow import write
    from pipelines.submit import follow, submit

    given = _given(options)
    ((name, built),) = _build(options, [options.pipeline])
    title = options.name or f"{name} {options.preset} {time.strftime('%Y-%m-%d %H:%M')}"
    with tempfile.TemporaryDirectory() as folder:
        package = write(built, Path(folder) / f"{name}.yaml")
        run = submit(package, options.host, title, given, options.namespace)
    print(run.link, flush=True)
    try:
        return 0 if not options.wait or follow(run) else 1
    except KeyboardInterrupt:
        print(f"not followed any more; the run goes on: {run.link}", file=sys.stderr)
        return 130


def _diff(options: argparse.Namespace) -> None:
    from pipelines.compiled import Compiled, changes

    for line in changes(Compiled(options.old), Compiled(options.new)):
        print(line)


def _run_local(options: argparse.Namespace) -> None:
    given = _given(options)
    from pipelines import local
    from pipelines.kubeflow import build

    pipeline = PIPELINES[options.pipeline]
    places = local.run(build(pipeline, _choices(options)), pipeline, options.out, given)
    for stage, ports in local.hashes(places).items():
        for port, digest in ports.items():
            print(f"{stage}.{port}  {digest}  {places[stage][port]}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    try:
        options = _parser().parse_args(arguments)
        if options.command == "params":
            check_idle()
            print(write(_choices(options)).relative_to(ROOT))
        elif options.command == "compose":
            tracking.new_workflow()
            write(last_choices(options.workflow))
        elif options.command == "submit":
            return _submit(options)
        elif options.command != "dvc":
            {"compile": _compile, "export": _export, "diff": _diff, "run-local": _run_local}[options.command](options)
        else:
            from pipelines.dvc import render

            for workflow in WORKFLOWS.values():
                (ROOT / workflow.dvc).write_text(render(workflow), encoding="utf-8")
    except UsageError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (DataError, RuntimeError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
