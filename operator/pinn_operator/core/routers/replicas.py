"""No router: the clients' Service selects both revisions, and the ratio of replicas is the share."""

from __future__ import annotations

from collections.abc import Iterator

from pinn_operator.core.manifest import Manifest
from pinn_operator.core.names import ObjectKind, Owner, selector_of
from pinn_operator.core.observed import Observed
from pinn_operator.core.routers.router import Seen, Split
from pinn_operator.core.routers.services import leads_to_stable, render_service, render_services, restore_services
from pinn_operator.core.wanted.spec import RouterKind, Traffic


class Replicas:
    """See `Router`. Weight 0 with running pods exists here too: the Service then selects the stable revision alone."""

    kind = RouterKind.REPLICAS
    kinds: tuple[ObjectKind, ...] = ()
    by_replicas = True

    def capacity(self, replicas: int, weight: int) -> int:
        """c/(n+c) comes closest to w for c = n·w/(100−w), at least 1 and at most n.

        >>> [Replicas().capacity(3, weight) for weight in (10, 50, 100)]
        [1, 3, 3]
        """
        if weight >= 100 or replicas == 0:
            return replicas
        return min(replicas, max(1, round(replicas * weight / (100 - weight))))

    def clients_revision(self, split: Split) -> str | None:
        if split.weight == 0:
            return split.stable
        return split.canary if split.weight == 100 else None

    def objects(self, owner: Owner, traffic: Traffic, split: Split, observed: Observed) -> Iterator[Manifest]:  # noqa: ARG002
        yield from render_services(owner, traffic, split, clients=self.clients_revision(split))

    def withdraw(self, owner: Owner, split: Split, observed: Observed) -> Iterator[Manifest]:
        live = restore_services(owner.name, observed)
        if live is None or split.weight > 0 or not leads_to_stable(owner.name, split, observed):
            return
        selector = selector_of(owner.name, split.stable)
        if observed.selectors[owner.name] != selector:
            yield render_service(
                owner, owner.name, selector=selector, port=live.service_port, service_type=live.service_type
            )

    def seen(self, name: str, split: Split, observed: Observed) -> Seen:  # noqa: ARG002
        """Selectors are all there is, and `core.rollout.sight` looks at those for every router."""
        return Seen(weight=split.weight, written=True, in_force=True)

    def restore(self, name: str, observed: Observed) -> Traffic | None:
        return restore_services(name, observed)
