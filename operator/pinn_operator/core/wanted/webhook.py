"""The block `webhook` of a gate."""

from __future__ import annotations

import re
from typing import Final

from pinn_operator.core.wanted.fields import Fields
from pinn_operator.core.wanted.references import secret_key
from pinn_operator.core.wanted.spec import Webhook

WEBHOOK_URL: Final = re.compile(
    r"https?://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?"
    r"(/[-A-Za-z0-9._~!$&()*+,;=:@%/]*)?([?][-A-Za-z0-9._~!$&()*+,;=:@%/?]*)?"
)


def parse_webhook(fields: Fields | None) -> Webhook | None:
    if fields is None:
        return None
    defaults = Webhook("")
    parsed = Webhook(
        url=fields.text(
            "url",
            limit=1024,
            pattern=WEBHOOK_URL,
            expected="an address like https://checks.example.com/canary, no credentials, no #",
        ),
        secret=secret_key(fields, "secretRef"),
        timeout_seconds=fields.integer("timeoutSeconds", minimum=1, maximum=30, default=defaults.timeout_seconds),
        retries=fields.integer("retries", minimum=0, maximum=5, default=defaults.retries),
    )
    fields.close()
    return parsed
