"""The command line: ``python3 -m cluster COMMAND``."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster.errors import ClusterError
from cluster.images import Build, LocalImages, parse_build_args
from cluster.local import LocalCluster
from cluster.progress import Progress
from cluster.settings import Mode, parse_settings
from cluster.toolchain import Toolchain


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m cluster")
    parser.add_argument("--state")
    parser.add_argument("--name", default="local")
    parser.add_argument("--ports-offset", type=int, default=0)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up")
    up.add_argument("--only", choices=["control-plane"])
    commands.add_parser("down")
    commands.add_parser("kubeconfig")
    status = commands.add_parser("status")
    status.add_argument("--json", action="store_true")
    for name in ("start", "stop"):
        one = commands.add_parser(name)
        one.add_argument("component")
        if name == "stop":
            one.add_argument("--kill", action="store_true")
    image = commands.add_parser("image").add_subparsers(dest="image_command", required=True)
    build = image.add_parser("build")
    build.add_argument("--file", required=True)
    build.add_argument("--tag", required=True)
    build.add_argument("--context", default=".")
    build.add_argument("--target")
    build.add_argument("--build-arg", action="append", default=[])
    load = image.add_parser("load")
    load.add_argument("tag", nargs="+")
    commands.add_parser("base")
    tool = commands.add_parser("tool")
    tool.add_argument("program")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    progress = Progress()
    try:
        settings = parse_settings(os.environ, state=options.state, name=options.name, ports_offset=options.ports_offset)
        local = LocalCluster(settings=settings, progress=progress)
        match options.command:
            case "up":
                local.up(Mode.CONTROL_PLANE if options.only else Mode.FULL)
                print(local.describe(), file=sys.stderr)
                print(f"export KUBECONFIG={settings.kubeconfig}")
            case "down":
                local.down()
            case "kubeconfig":
                print(settings.kubeconfig)
            case "status":
                found = local.status()
                if options.json:
                    print(
                        json.dumps([{"name": s.name, "pid": s.pid, "ready": s.ready, "log": str(s.log)} for s in found])
                    )
                else:
                    for s in found:
                        print(f"{s.name:12} {s.pid or '-':>8} {'ready' if s.ready else 'NOT READY'}")
                return 0 if found and all(s.ready for s in found) else 1
            case "start":
                local.start(options.component)
            case "stop":
                local.stop(options.component, kill=options.kill)
            case "image" if options.image_command == "build":
                LocalImages(settings=settings, mirror=os.environ.get("DEBIAN_MIRROR"), progress=progress).build(
                    Build(
                        dockerfile=Path(options.file),
                        tag=options.tag,
                        context=Path(options.context),
                        build_args=parse_build_args(options.build_arg),
                        target=options.target,
                    )
                )
            case "image":
                images = LocalImages(settings=settings, mirror=os.environ.get("DEBIAN_MIRROR"), progress=progress)
                for tag in options.tag:
                    if not images.load(tag):
                        progress.say(f"{tag} is loaded already")
            case "base":
                print(LocalImages(settings=settings, mirror=os.environ.get("DEBIAN_MIRROR"), progress=progress).base())
            case "tool":
                toolchain = Toolchain(cache=settings.cache, progress=progress)
                toolchain.ensure((Toolchain.tool_of(options.program),))
                print(toolchain.program(options.program))
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
