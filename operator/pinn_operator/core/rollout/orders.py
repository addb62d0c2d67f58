"""Orders given by annotation. Each is executed once, and the status keeps which were."""

from __future__ import annotations

from dataclasses import replace

from pinn_operator.core.rollout.draft import Draft, Pass
from pinn_operator.core.rollout.trouble import Trouble, trouble
from pinn_operator.core.status.values import ORDER_LIMIT, Phase, RetryStatus, Status


def retry_if_ordered(this: Pass, draft: Draft) -> None:
    """`pinn.dev/retry: <any new id>`: a rejected revision is tried again, a suspended one at once.

    An order that finds nothing to retry is spent too, and says so: executed later it would surprise. A rollback in
    flight is finished first.
    """
    order, status = this.resource.retry, draft.status
    done = (*status.retry.earlier, status.retry.id) if status.retry else ()
    if not order or order in done or status.phase is Phase.ROLLING_BACK:
        return
    executed = True
    suspension = status.rollout.suspension if status.rollout is not None else None
    if status.rejected is not None and status.phase is Phase.ROLLED_BACK:
        message = f"revision {status.rejected.revision} is tried again"
        status = replace(status, phase=Phase.STABLE, canary=None, rejected=None)
    elif status.rollout is not None and suspension is not None and status.canary is not None and (
        suspension.final or this.now < suspension.retry_time
    ):  # fmt: skip
        revision = status.canary.revision
        ready = this.observed.available(revision) > 0
        message = f"revision {revision} goes on" + ("" if ready else ", as soon as a pod of it is available")
        suspension = replace(suspension, final=False, retry_time=this.now)
        status = replace(status, rollout=replace(status.rollout, suspension=suspension, suspensions=0))
    else:
        message, executed = f"nothing to retry: {_what_is_instead(this, status)}", False
    draft.status = replace(status, retry=RetryStatus(order, this.now, message, done[-ORDER_LIMIT:]))
    if executed:
        draft.normal("Retried", message)
    else:
        draft.warning("NothingToRetry", message)


def _what_is_instead(this: Pass, status: Status) -> str:
    """Why an order finds nothing, and what can be done about what the rollout waits for."""
    newest = status.canary or (status.stable if status.phase is Phase.PENDING else None)
    if newest is None:
        return "no revision is rejected or suspended"
    suspension = status.rollout.suspension if status.rollout is not None else None
    found = trouble(this.observed, newest.revision)
    if found is None and suspension is not None:
        found = Trouble(suspension.reason, suspension.message)
    if found is None:
        return f"revision {newest.revision} is being rolled out, it is neither rejected nor suspended"
    way_out = _PULL if found.reason == "ImagePullFailed" else "it goes on by itself when that is over"
    return f"revision {newest.revision} waits by itself, {found.reason}: {found.text}; {way_out}"


_PULL = (
    "the kubelet tries again by itself, at the latest after five minutes, and at once for a new pod: "
    "delete the one that waits"
)
