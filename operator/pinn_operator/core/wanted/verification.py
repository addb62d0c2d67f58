"""The block `spec.verification`."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from pinn_operator.core.wanted.fields import Fields
from pinn_operator.core.wanted.spec import Verification, VerificationMode

REVISION: Final = re.compile(r"[0-9a-f]{8}")
_LARGEST_TOLERANCE: Final = Decimal("0.1")


def parse_verification(fields: Fields) -> Verification:
    defaults = Verification()
    tolerance = fields.quantity("tolerance")
    if tolerance is not None and not 0 < tolerance <= _LARGEST_TOLERANCE:
        fields.fault(
            "tolerance", f'must be a share of the strike above 0 and at most 0.1, like "1e-6", not {tolerance}'
        )
    parsed = Verification(
        mode=fields.choice("mode", VerificationMode, default=defaults.mode),
        options=fields.integer("options", minimum=8, maximum=2000, default=defaults.options),
        tolerance=defaults.tolerance if tolerance is None else float(tolerance),
        timeout_seconds=fields.integer("timeoutSeconds", minimum=5, maximum=600, default=defaults.timeout_seconds),
        acknowledged_revision=fields.text(
            "acknowledgedRevision",
            limit=8,
            pattern=REVISION,
            expected="the name of a revision like 9d77e0aa, as status.canary.revision shows it",
            default="",
        ),
    )
    fields.close()
    return parsed
