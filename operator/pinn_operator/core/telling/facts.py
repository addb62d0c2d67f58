"""What the status is derived from: everything that one pass saw and decided."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pinn_operator.core.api import Resource
from pinn_operator.core.gates.judgement import Condemnation, Judgement
from pinn_operator.core.observed import Observed
from pinn_operator.core.rollout.waits import Gravity, Wait
from pinn_operator.core.samples import PodReadFaults
from pinn_operator.core.status.values import Condition, Status
from pinn_operator.core.wanted.spec import Spec


@dataclass(frozen=True, slots=True)
class Facts:
    """The input of every function of this package."""

    resource: Resource
    """With its status as it was read."""
    spec: Spec | None
    """The spec in force."""
    observed: Observed
    status: Status
    """As it was decided; what is derived from it is still that of the pass before."""
    judgement: Judgement
    held: Condemnation | None
    """Why the canary should leave, while it must or may not."""
    waits: tuple[Wait, ...]
    """Why the rollout did not move in this pass: the first is the one to be shown."""
    now: datetime
    pod_reads: PodReadFaults | None = None
    """Pods whose counters could not be read in this pass; None if none were asked for."""

    def before(self, condition: str) -> Condition | None:
        """A condition as it was read."""
        return self.resource.status.condition(condition)

    def wait_of(self, gravity: Gravity) -> Wait | None:
        """The first wait of that gravity."""
        return next((wait for wait in self.waits if wait.gravity is gravity), None)
