"""What the demo takes away: only what it made; the rest is named. And what its first run says of its packages."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from demo.made import DEFINITION, MARK, Made, note, noted, take_away
from lab.line import OPERATOR_NAMESPACE, RELEASE
from requirements.install import state, wanted

RELEASES = f"secrets -l owner=helm,name={RELEASE}"


class Cluster:
    """The kubectl commands that the demo gives, on a set of objects."""

    def __init__(self, *there: str) -> None:
        self.there = set(there)
        self.note: dict[str, str] | None = None
        self.services: list[str] = []

    def kubectl(self, *words: str, stdin: str | None = None, timeout: float = 60.0) -> str:
        del stdin, timeout
        verb, kind, name = words[0], words[1], words[2]
        if (verb, kind) == ("create", "configmap"):
            pairs = (word.removeprefix("--from-literal=").split("=") for word in words if "--from-literal" in word)
            self.note = dict(pairs)
        elif verb == "delete":
            self.there.discard(f"{kind}/{name}")
            self.note = None if name == MARK else self.note
        elif kind == "pinnservices":
            return "\n".join(self.services)
        elif name == MARK:
            shown = " ".join(f"{key}={value}" for key, value in (self.note or {}).items())
            return shown if "name" not in words else "configmap/x" if self.note is not None else ""
        elif kind == "secrets":
            return RELEASES if RELEASES in self.there else ""
        else:
            return f"{kind}/{name}" if f"{kind}/{name}" in self.there else ""
        return ""

    def install(self) -> None:
        self.there |= {RELEASES, f"namespace/{OPERATOR_NAMESPACE}", f"customresourcedefinition/{DEFINITION}",
                       "namespace/pinn-demo"}  # fmt: skip

    def uninstall(self) -> None:
        self.there.discard(RELEASES)


def taken(cluster: Cluster) -> tuple[bool, list[str]]:
    said: list[str] = []
    return take_away(cluster, said.append, demo="pinn-demo", uninstall=cluster.uninstall), said


def about(said: Iterable[str], what: str) -> list[str]:
    return [line.partition(":")[0] for line in said if what in line]


def test_on_a_cluster_that_was_empty_all_goes_but_the_cluster() -> None:
    cluster = Cluster()
    note(cluster, cluster=False)
    cluster.install()
    whole, said = taken(cluster)
    assert not whole
    assert cluster.there == set()
    assert cluster.note is None
    assert [line for line in said if line.startswith("stays")] == [
        "stays: the cluster, which was there before (`make cluster-down` takes it down)"
    ]


def test_a_cluster_that_the_demo_made_goes_as_a_whole() -> None:
    cluster = Cluster()
    note(cluster, cluster=True)
    cluster.install()
    assert taken(cluster) == (True, [])


def test_an_operator_that_was_there_before_stays_and_so_do_its_definition_and_its_namespace() -> None:
    cluster = Cluster()
    cluster.install()
    before = set(cluster.there) - {"namespace/pinn-demo"}
    note(cluster, cluster=False)
    _, said = taken(cluster)
    assert cluster.there == before
    assert about(said, "the operator in") == ["stays"]
    assert any("helm rollback" in line for line in said)


def test_a_definition_stays_as_long_as_there_are_services_of_somebody_else() -> None:
    cluster = Cluster()
    note(cluster, cluster=False)
    cluster.install()
    cluster.services = ["pinnservice.pinn.dev/eu-options"]
    _, said = taken(cluster)
    assert f"customresourcedefinition/{DEFINITION}" in cluster.there
    assert about(said, DEFINITION) == ["stays"]


@pytest.mark.parametrize("there", [f"customresourcedefinition/{DEFINITION}", f"namespace/{OPERATOR_NAMESPACE}"])
def test_a_definition_or_a_namespace_that_was_there_before_stays_and_is_named(there: str) -> None:
    cluster = Cluster(there)
    note(cluster, cluster=False)
    cluster.install()
    _, said = taken(cluster)
    assert cluster.there == {there}
    assert about(said, f"{there.partition('/')[2]}, which was there before") == ["stays"]


def test_the_first_note_counts_whatever_a_second_run_finds() -> None:
    cluster = Cluster()
    note(cluster, cluster=True)
    cluster.install()
    note(cluster, cluster=False)
    assert noted(cluster) == Made(cluster=True, operator=True, namespace=True, definition=True)


def test_without_a_note_nothing_is_the_demo_s_but_its_own_namespace() -> None:
    cluster = Cluster()
    cluster.install()
    before = set(cluster.there) - {"namespace/pinn-demo"}
    taken(cluster)
    assert cluster.there == before


def test_the_packages_of_all_lock_files_are_counted_once() -> None:
    locks = [
        "aiohttp==3.14.5 \\\n    --hash=sha256:00\nuvicorn[standard]==1.0 \\\n    --hash=sha256:01\n",
        "aiohttp==3.14.5\n",
    ]
    assert wanted(locks) == 2


def test_while_packages_are_installed_it_is_said_how_far_that_is() -> None:
    said = "Collecting aiohttp==3.14.5\n  Downloading aiohttp.whl (2 MB)\nCollecting uvicorn==1.0\n"
    assert state("", 3) == "0 of 3 packages fetched"
    assert state(said, 3) == "2 of 3 packages fetched"
    assert state(f"{said}Installing collected packages: aiohttp", 3) == "all are there, they are being unpacked"
