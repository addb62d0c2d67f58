"""The command line: `python -m demo up` and `python -m demo down`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

from demo.made import note, take_away
from demo.story import NAMESPACE, Demo
from demo.view import Screen
from lab.kube import REPOSITORY, Kube, KubeError, find_kubeconfig
from lab.line import bring_up, uninstall_chart


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the two commands; 1 if it fails."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("command", choices=("up", "down"))
    command = parser.parse_args(arguments).command
    try:
        return up() if command == "up" else down()
    except (KubeError, TimeoutError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: stopped; what is up stays up (`make demo-down` takes it down)", file=sys.stderr)
        return 130


def up() -> int:
    """Bring the whole line up and tell the story."""
    screen = Screen()
    found = _has_cluster()
    screen.title("the line: a cluster, a router, Prometheus, two images, the chart")
    line = bring_up(screen.say, before_install=lambda kube: note(kube, cluster=not found))
    Demo(line, screen).run()
    return 0


def down() -> int:
    """Remove what the demo made, and say what stays."""
    screen = Screen()
    if not _has_cluster():
        screen.say("there is no cluster: nothing to take down")
        return 0
    kube = Kube(find_kubeconfig())
    status = 0
    if take_away(kube, screen.say, demo=NAMESPACE, uninstall=lambda: uninstall_chart(kube)):
        words = ["python3", "-m", "cluster", "down"]
        status = subprocess.run(words, cwd=REPOSITORY, check=False, timeout=300).returncode
        if status == 0:
            screen.say("removed: the cluster that the demo had made, with everything in it")
    screen.say("stays: .venv (`make clean`), and programs and images in ~/.cache/pinn-operator for the next time")
    return status


def _has_cluster() -> bool:
    try:
        return Kube(find_kubeconfig()).is_up()
    except KubeError:
        return False


if __name__ == "__main__":
    raise SystemExit(main())
