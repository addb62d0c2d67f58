"""What a router is: how a weight becomes traffic, and how it is known that it has.

A new one is one file in this package and one line in `core.routers.registry`: what is watched, owned and granted by
RBAC follows from its `kinds`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from pinn_operator.core.manifest import Manifest
from pinn_operator.core.names import ObjectKind, Owner
from pinn_operator.core.observed import Observed
from pinn_operator.core.wanted.spec import RouterKind, Traffic


@dataclass(frozen=True, slots=True)
class Split:
    """How requests are to be divided between two revisions."""

    stable: str
    canary: str
    """`stable` when there is no canary."""
    weight: int
    """The canary's share, in percent."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a router's objects hold and what it reports about them."""

    weight: int | None
    """The canary's weight as it is written, in percent; None when nothing is there that could hold one."""
    written: bool
    """Exactly the wanted weights are written."""
    in_force: bool
    """The router reports that it acts on what is written. A report is a claim: see `core.rollout.sight`."""
    reason: str = ""
    """Why it is not in force, as the reason of a condition."""
    message: str = ""
    unserved: bool = False
    """No client reaches the pods by it."""


class Router(Protocol):
    """One way to divide requests. Every method is pure."""

    @property
    def kind(self) -> RouterKind:
        """Its value in `spec.traffic.router`."""

    @property
    def kinds(self) -> tuple[ObjectKind, ...]:
        """The kinds of objects that it needs beside Services. Each is called like the PINNService."""

    @property
    def by_replicas(self) -> bool:
        """The clients' Service selects the pods of both revisions, and the ratio of replicas is the weight."""

    def capacity(self, replicas: int, weight: int) -> int:
        """How many canary replicas carry `weight` percent beside `replicas` of stable."""

    def clients_revision(self, split: Split) -> str | None:
        """The revision that the clients' Service `<name>` selects; None for both."""

    def objects(self, owner: Owner, traffic: Traffic, split: Split, observed: Observed) -> Iterator[Manifest]:
        """All that it needs for `split`, the three Services included, in the order in which it is written."""

    def withdraw(self, owner: Owner, split: Split, observed: Observed) -> Iterator[Manifest]:
        """What lowers the canary's share to that of `split` and changes nothing else.

        It is written before everything else: a Service of a new type that a quota forbids, say, must not keep the
        traffic where it is. Nothing when the share is not higher.
        """

    def seen(self, name: str, split: Split, observed: Observed) -> Seen:
        """How far `split` is written and in force."""

    def restore(self, name: str, observed: Observed) -> Traffic | None:
        """The `spec.traffic` that the live objects were written from; None if they are not there."""
