"""The block `spec.rollback`."""

from __future__ import annotations

from pinn_operator.core.wanted.fields import Fields
from pinn_operator.core.wanted.spec import (
    Rollback,
    RollbackMode,
)


def parse_rollback(rollback: Fields) -> Rollback:
    parsed = Rollback(
        mode=rollback.choice("mode", RollbackMode, default=RollbackMode.AUTO),
        scale_down_delay_seconds=rollback.integer("scaleDownDelaySeconds", minimum=0, maximum=86400, default=30),
        drain_seconds=rollback.integer("drainSeconds", minimum=1, maximum=3600, default=10),
        ready_deadline_seconds=rollback.integer("readyDeadlineSeconds", minimum=10, maximum=86400, default=600),
        unready_seconds=rollback.integer("unreadySeconds", minimum=1, maximum=3600, default=30),
        revision_history_limit=rollback.integer("revisionHistoryLimit", minimum=1, maximum=20, default=5),
    )
    rollback.close()
    return parsed
