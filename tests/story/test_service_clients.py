"""Clients inside the cluster that use the Service, beside those of the route."""

from __future__ import annotations

from pinn_operator.core.status.values import Phase
from tests.story.world import World, service, serving


class ServiceClients(World):
    """A share `inside` of the requests goes to the Service, which leads to stable."""

    inside = 1.0

    def _traffic(self, tick: float) -> None:
        expected = self.rate * tick
        count = int(expected) + (self.random.random() < expected % 1)
        by_service = sum(self.random.random() < self.inside for _ in range(count))
        self._answer(self.name, by_service)
        whole, self.rate = self.rate, (count - by_service) / tick
        try:
            super()._traffic(tick)
        finally:
            self.rate = whole


def rollout(inside: float) -> ServiceClients:
    world = ServiceClients(service(), rate=40)
    world.inside = inside
    serving(world).apply(image="pinn:2")
    assert isinstance(world, ServiceClients)
    return world


def test_a_good_revision_is_not_taken_for_cut_off_because_most_clients_use_the_service() -> None:
    world = rollout(0.95)
    world.run_until(lambda it: it.weight == 50, at_most=900, tick=1)
    assert not world.said("Suspended"), world.describe()


def test_a_route_that_nobody_uses_is_named_as_a_cause() -> None:
    world = rollout(1.0)
    world.run_until(lambda it: it.state.phase is Phase.SUSPENDED, tick=1)
    assert world.state.rollout is not None
    assert world.state.rollout.suspension is not None
    assert world.state.rollout.suspension.reason == "TrafficNotArriving"
    assert "clients use the Service and not the route" in world.state.rollout.suspension.message
