"""The command line: `python -m demo up` and `python -m demo down`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

from demo.story import NAMESPACE, Demo
from demo.view import Screen
from tests.support.kube import REPOSITORY, Kube, KubeError, find_kubeconfig
from tests.support.line import bring_up, uninstall_chart

MADE_HERE = "pinn-demo-made-this-cluster"
"""A ConfigMap in kube-system: the demo found no cluster and made this one, so taking the demo down takes it down."""


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
    line = bring_up(screen.say)
    if not found:
        line.kube.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": MADE_HERE, "namespace": "kube-system"}}
        )
    Demo(line, screen).run()
    return 0


def down() -> int:
    """Remove the demo and the chart, and the cluster if the demo made it."""
    screen = Screen()
    if not _has_cluster():
        screen.say("there is no cluster: nothing to take down")
        return 0
    kube = Kube(find_kubeconfig())
    kube.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=true", timeout=180)
    screen.say(f"namespace {NAMESPACE} is gone")
    uninstall_chart(kube)
    screen.say("the operator is uninstalled; its CustomResourceDefinition is kept")
    mark = kube.kubectl("get", "configmap", MADE_HERE, "-n", "kube-system", "--ignore-not-found", "-o", "name")
    if not mark.strip():
        screen.say("the cluster was there before the demo, so it stays (`make cluster-down` takes it down)")
        return 0
    return subprocess.run(["python3", "-m", "cluster", "down"], cwd=REPOSITORY, check=False, timeout=300).returncode


def _has_cluster() -> bool:
    try:
        return Kube(find_kubeconfig()).is_up()
    except KubeError:
        return False


if __name__ == "__main__":
    raise SystemExit(main())
