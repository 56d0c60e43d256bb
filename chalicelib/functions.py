"""The Lambda functions beside the API: tell who calls, deliver wake-ups, sweep up what was missed.

Their Lambdas import neither app.py nor pydantic. A wake-up is only a hint, so every function may
run twice, late, or side by side with itself.
"""

from __future__ import annotations

import logging
from typing import Any

from chalice.app import AuthRequest, AuthResponse, Blueprint, Rate, SQSEvent

from chalicelib import wiring
from chalicelib.aws import message
from chalicelib.callers import KEPT_S
from chalicelib.errors import Unauthorized, Unavailable
from chalicelib.ports import Metric
from chalicelib.timer import DEFAULT_TENANT

log = logging.getLogger(__name__)

BATCH_SIZE = 10

DENIED = {
    "principalId": "nobody",
    "policyDocument": {
        "Version": "2012-10-17",
        "Statement": [{"Action": "execute-api:Invoke", "Effect": "Deny", "Resource": "*"}],
    },
}

functions = Blueprint(__name__)


@functions.authorizer(name="authorizer", ttl_seconds=KEPT_S)
def authorizer(request: AuthRequest) -> AuthResponse | dict[str, Any]:
    """Tell the gateway whose key a request carries, in ``context.tenant``.

    The answer is for all routes: the gateway keeps it for the key, whatever path it was asked
    for. A key that is not known is denied and not raised upon: a raised error would be a failed
    invocation with a stack trace, and anybody could fill the log and set off the alarms.
    Raises ``Unavailable``: the key may be good, so that is no denial, and is not kept.
    """
    try:
        tenant = wiring.callers().tenant_of(request.token)
    except (Unauthorized, Unavailable) as error:
        if wiring.under_chalice_local():
            # Its gateway makes 403 of a denial and hangs up on errors: the API refuses instead.
            return AuthResponse(["*"], principal_id="nobody", context={"refused": error.code})
        if isinstance(error, Unavailable):
            raise
        return DENIED
    return AuthResponse(["*"], principal_id=tenant, context={"tenant": tenant})


@functions.lambda_function(name="webhook")
def webhook(event: Any, context: Any) -> dict[str, Any]:
    """Deliver one timer if it is due, queue the exact rest of its time if it is not.

    EventBridge Scheduler sends a wake-up; an operator may send ``{"id": 1}``, with a ``tenant``
    where it is not the default one.
    """
    with wiring.observed(context):
        delivery = wiring.delivery()
        if isinstance(event, dict) and type(event.get("id")) is int:
            outcome = delivery.wake_or_deliver(event.get("tenant", DEFAULT_TENANT), event["id"])
        else:
            outcome = delivery.deliver(message.read(event))
        return {"status": outcome.status, "error": outcome.error} if outcome else {}


@functions.on_sqs_message(queue=wiring.names().queue, batch_size=BATCH_SIZE, name="webhook_queue")
def webhook_queue(event: SQSEvent) -> None:
    """Deliver a batch of wake-ups side by side.

    What cannot be delivered now goes back as a new message; the batch fails only if not even
    that could be done.
    """
    with wiring.observed(event.context):
        bodies = [record.body for record in event]
        wiring.delivery().deliver_all(message.decode_all(bodies, wiring.meter()))


@functions.schedule(Rate(1, Rate.MINUTES), name="sweeper")
def sweeper(event: Any) -> dict[str, Any]:
    """Put what was missed on the queue."""
    with wiring.observed(event.context):
        swept = wiring.sweeper().sweep()
        wiring.meter()(Metric.SWEPT, swept.sent)
        wiring.meter()(Metric.OVERDUE_MS, swept.overdue)
        log.info("swept: %s sent, finished: %s", swept.sent, swept.finished)
        return {"sent": swept.sent, "finished": swept.finished}
