"""Orders given by annotation. Each is executed once, and the status keeps which were."""

from __future__ import annotations

from dataclasses import replace

from pinn_operator.core.rollout.draft import Draft, Pass
from pinn_operator.core.status.values import ORDER_LIMIT, Phase, RetryStatus


def retry_if_ordered(this: Pass, draft: Draft) -> None:
    """`pinn.dev/retry: <any new id>`: a rejected revision is tried again, a suspended one at once.

    A rollback in flight is finished first.
    """
    order, status = this.resource.retry, draft.status
    done = (*status.retry.earlier, status.retry.id) if status.retry else ()
    if not order or order in done or status.phase is Phase.ROLLING_BACK:
        return
    message = "nothing to retry"
    if status.rejected is not None and status.phase is Phase.ROLLED_BACK:
        message = f"revision {status.rejected.revision} is tried again"
        status = replace(status, phase=Phase.STABLE, canary=None, rejected=None)
    elif status.rollout is not None and status.rollout.suspension is not None and status.canary is not None:
        message = f"revision {status.canary.revision} goes on"
        suspension = replace(status.rollout.suspension, final=False, retry_time=this.now)
        status = replace(status, rollout=replace(status.rollout, suspension=suspension, suspensions=0))
    draft.status = replace(status, retry=RetryStatus(order, this.now, message, done[-ORDER_LIMIT:]))
    draft.normal("Retried", message)
