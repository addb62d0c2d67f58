"""The command line: ``python3 -m cluster COMMAND``, from the repository root."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster.backend import Backend
from cluster.current import CurrentCluster
from cluster.errors import ClusterError
from cluster.images import Build, parse_build_args
from cluster.kind import KindCluster, docker_answers
from cluster.local import LocalCluster
from cluster.progress import Progress
from cluster.settings import Mode, Settings, parse_settings
from cluster.toolchain import Toolchain

_CHOICES = ("auto", "kind", "local", "current")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m cluster",
        description="A one-node Kubernetes with a Gateway API router and Prometheus, for development and tests.",
    )
    parser.add_argument(
        "--cluster",
        choices=_CHOICES,
        help="kind: by Docker; local: of host processes, needs root; current: the context in use, never changed; "
        "auto: kind where a Docker engine answers, else local (default: $CLUSTER, or auto)",
    )
    parser.add_argument("--state", metavar="DIR", help="state folder of the local cluster")
    parser.add_argument("--name", default="local", help="the kubeconfig context is pinn-NAME (default: local)")
    parser.add_argument("--ports-offset", type=int, default=0, metavar="N", help="added to every port on the host")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="make it be up and ready, whatever there is of it")
    up.add_argument("--only", choices=["control-plane"], help="etcd, API server and controller manager; no node")
    commands.add_parser("down", help="take it down, and every change on the host back")
    status = commands.add_parser("status", help="which parts serve; exit status 1 when not all do")
    info = commands.add_parser("info", help="how it is reached, from here and from pods")
    for with_json in (status, info):
        with_json.add_argument("--json", action="store_true")
    commands.add_parser("kubeconfig", help="print the path of its kubeconfig")
    start = commands.add_parser("start", help="start one component and wait until it serves")
    stop = commands.add_parser("stop", help="stop one component")
    stop.add_argument("--kill", action="store_true", help="with SIGKILL")
    for one in (start, stop):
        one.add_argument("component")
    image = commands.add_parser("image", help="images of this repository").add_subparsers(dest="action", required=True)
    build = image.add_parser("build", help="build one")
    build.add_argument("--file", required=True, type=Path, metavar="DOCKERFILE")
    build.add_argument("--tag", required=True)
    build.add_argument("--context", default=Path(), type=Path)
    build.add_argument("--target")
    build.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    load = image.add_parser("load", help="make images known to the cluster")
    load.add_argument("tag", nargs="+")
    commands.add_parser("base", help="print the name of the base image, made where none can be fetched")
    tool = commands.add_parser("tool", help="print the path of kubectl, helm, promtool …, made when missing")
    tool.add_argument("program")
    return parser


def choose(wanted: str, *, docker: bool, own: bool, needs_root: bool, root: bool, linux: bool) -> str:
    """``local``, ``kind`` or ``current`` from what is wanted and what there is.

    ``own`` says that the command names a state folder or the like of its own, which can only be that of a local one.
    Raises ClusterError when the choice is none, or when this machine can do nothing of itself.
    """
    if wanted not in _CHOICES:
        raise ClusterError(f"CLUSTER={wanted!r}: want one of {', '.join(_CHOICES)}")
    if wanted in {"kind", "current"}:
        return wanted
    if wanted == "auto" and docker and not own:
        return "kind"
    if not linux:
        raise ClusterError("no Docker engine answers, and a cluster of host processes needs Linux")
    if needs_root and not root:
        raise ClusterError("a cluster of host processes needs root; without it, use a Docker engine (CLUSTER=kind)")
    return "local"


def _backend(options: argparse.Namespace, settings: Settings, progress: Progress) -> Backend:
    wanted = options.cluster or os.environ.get("CLUSTER") or "auto"
    only_control_plane = getattr(options, "only", None) is not None
    own = options.state is not None or options.name != "local" or only_control_plane
    chosen = choose(
        wanted,
        docker=wanted == "auto" and not own and docker_answers(),
        own=own,
        needs_root=options.command in {"image", "base"} or (options.command == "up" and not only_control_plane),
        root=os.geteuid() == 0,
        linux=sys.platform == "linux",
    )
    if chosen == "kind":
        return KindCluster(settings=settings, progress=progress)
    if chosen == "current":
        return CurrentCluster(progress=progress)
    return LocalCluster(settings=settings, progress=progress)


def _show_status(backend: Backend, *, as_json: bool) -> int:
    found = backend.status()
    if as_json:
        rows = [{"name": part.name, "ready": part.ready, "pid": part.pid, "log": str(part.log or "")} for part in found]
        print(json.dumps(rows))
    elif not found:
        print("nothing is up")
    else:
        for part in found:
            print(f"{part.name:12} {part.pid or '-':>8}  {'ready' if part.ready else 'NOT READY'}")
    return 0 if found and all(part.ready for part in found) else 1


def _run(options: argparse.Namespace, settings: Settings, progress: Progress) -> int:
    if options.command == "tool":
        toolchain = Toolchain(cache=settings.cache, progress=progress)
        toolchain.ensure((Toolchain.tool_of(options.program),))
        print(toolchain.program(options.program))
        return 0
    backend = _backend(options, settings, progress)
    match options.command:
        case "up":
            backend.up(Mode.CONTROL_PLANE if options.only else Mode.FULL)
            access = backend.access()
            print(access.render_text(), file=sys.stderr)
            print(f"export KUBECONFIG={access.kubeconfig}")
        case "down":
            backend.down()
        case "status":
            return _show_status(backend, as_json=options.json)
        case "info":
            print(backend.access().render_json() if options.json else backend.access().render_text())
        case "kubeconfig":
            kubeconfig = backend.access().kubeconfig
            # Printed all the same: an empty KUBECONFIG would mean whatever cluster kubectl uses otherwise.
            print(kubeconfig)
            if not kubeconfig.exists():
                raise ClusterError(f"there is no cluster: {kubeconfig} does not exist; `make cluster-up` makes it")
        case "start":
            backend.start(options.component)
        case "stop":
            backend.stop(options.component, kill=options.kill)
        case "base":
            print(backend.base())
        case "image" if options.action == "build":
            wanted = Build(
                dockerfile=options.file,
                tag=options.tag,
                context=options.context,
                build_args=parse_build_args(options.build_arg),
                target=options.target,
            )
            backend.build(wanted)
        case "image":
            for tag in options.tag:
                if not backend.load(tag):
                    progress.say(f"{tag} is loaded already")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 with one line that says what is wrong; 130 when interrupted, which ``up`` repairs."""
    options = _parser().parse_args(argv)
    progress = Progress()
    try:
        settings = parse_settings(os.environ, state=options.state, name=options.name, ports_offset=options.ports_offset)
        return _run(options, settings, progress)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command again goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
