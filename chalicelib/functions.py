"""The Lambda functions beside the API: authorize a client, deliver wake-ups, sweep.

Their Lambdas import neither app.py nor pydantic, which would slow their cold starts. A wake-up is
only a hint, so every function may run twice, late, or side by side with itself.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple, Protocol

from chalice.app import (
    AuthRequest,
    AuthResponse,
    Blueprint,
    ChaliceAuthorizer,
    EventSourceHandler,
    Rate,
    SQSEvent,
)

from chalicelib import bootstrap
from chalicelib.aws import message
from chalicelib.aws.names import Names
from chalicelib.domain.errors import Unauthorized, Unavailable
from chalicelib.domain.timer import DEFAULT_TENANT
from chalicelib.service.api_keys import AUTHORIZER_CACHE_TTL_S, ApiKeys
from chalicelib.service.delivery import Delivery
from chalicelib.service.ports import Metric, Telemetry
from chalicelib.service.sweep import Sweeper

log = logging.getLogger(__name__)

BATCH_SIZE = 10
"""Messages per invocation. SQS allows more only with a batching window, which delays messages."""

DENY_ALL = {
    "principalId": "nobody",
    "policyDocument": {
        "Version": "2012-10-17",
        "Statement": [{"Action": "execute-api:Invoke", "Effect": "Deny", "Resource": "*"}],
    },
}


class UseCases(Protocol):
    """The use cases that the functions call; ``bootstrap.Service`` has them."""

    @property
    def api_keys(self) -> ApiKeys:
        """Find the tenant of an API key."""

    @property
    def delivery(self) -> Delivery:
        """Deliver wake-ups."""

    @property
    def sweeper(self) -> Sweeper:
        """Find timers whose wake-up was lost."""

    @property
    def telemetry(self) -> Telemetry:
        """Log and count."""


class _Handlers:
    """The bodies of the functions. Each takes an event, calls one use case, returns its result."""

    def __init__(self, service: UseCases, *, refuse_in_api: bool) -> None:
        self._service = service
        self._refuse_in_api = refuse_in_api

    def authorizer(self, request: AuthRequest) -> AuthResponse | dict[str, Any]:
        """Return to API Gateway the policy of a request, with its tenant in ``context.tenant``.

        Raises ``Unavailable`` when keys cannot be looked up. The key may be good, so this is no
        denial, and the gateway does not cache it.
        """
        try:
            tenant = self._service.api_keys.tenant_of(request.token)
        except (Unauthorized, Unavailable) as error:
            if self._refuse_in_api:
                return AuthResponse(["*"], principal_id="nobody", context={"refused": error.code})
            if isinstance(error, Unavailable):
                raise
            # Not raised: an error is a failed invocation with a stack trace. Anybody could fill the
            # log and set off the alarms with it.
            return DENY_ALL
        # All routes, because the gateway caches the policy for the key, not for the path.
        return AuthResponse(["*"], principal_id=tenant, context={"tenant": tenant})

    def webhook(self, event: Any, context: Any) -> dict[str, Any]:
        """Deliver one timer if it is due. If it is not, queue a wake-up for the rest of its delay.

        EventBridge Scheduler sends a wake-up. An operator may send ``{"id": 1}``, with a
        ``tenant`` unless it is the default one.
        """
        with self._service.telemetry.observe(context):
            delivery = self._service.delivery
            # Not ``isinstance(…, int)``: True is an int too, but no id.
            if isinstance(event, dict) and type(event.get("id")) is int:
                attempt = delivery.wake_or_deliver(event.get("tenant", DEFAULT_TENANT), event["id"])
            else:
                attempt = delivery.deliver(message.read(event))
            return {"status": attempt.status, "error": attempt.error} if attempt else {}

    def webhook_queue(self, event: SQSEvent) -> None:
        """Deliver a batch of wake-ups side by side.

        A wake-up that cannot be delivered now is put back. The batch fails only if some wake-up
        could be neither delivered nor put back.
        """
        with self._service.telemetry.observe(event.context):
            wakeups = message.decode_all(
                (record.body for record in event), self._service.telemetry.meter
            )
            self._service.delivery.deliver_all(wakeups)

    def sweeper(self, event: Any) -> dict[str, Any]:
        """Queue a wake-up for every timer that was missed."""
        with self._service.telemetry.observe(event.context):
            swept = self._service.sweeper.sweep()
            self._service.telemetry.meter(Metric.SWEPT, swept.sent)
            self._service.telemetry.meter(Metric.OVERDUE_MS, swept.overdue_ms)
            log.info("swept: %s sent, finished: %s", swept.sent, swept.finished)
            return {"sent": swept.sent, "finished": swept.finished}


class Functions(NamedTuple):
    """The functions, as Chalice wraps them, and the blueprint that adds them to an app."""

    blueprint: Blueprint
    authorizer: ChaliceAuthorizer
    webhook: EventSourceHandler
    webhook_queue: EventSourceHandler
    sweeper: EventSourceHandler


def create_functions(service: UseCases, names: Names, *, refuse_in_api: bool = False) -> Functions:
    """Return the functions that call ``service``, for the stage whose resources have ``names``.

    ``refuse_in_api`` is for ``chalice local``. Its gateway responds 403 to a denial and drops the
    connection on an error. So the authorizer lets the request through, and the API refuses it.
    """
    blueprint = Blueprint(__name__)
    handlers = _Handlers(service, refuse_in_api=refuse_in_api)
    # Chalice derives a Lambda's handler from the name of a function: ``webhook`` becomes
    # ``chalicelib.functions.webhook``. So each of these names is an attribute of the module, below.
    return Functions(
        blueprint=blueprint,
        authorizer=blueprint.authorizer(AUTHORIZER_CACHE_TTL_S, name="authorizer")(
            handlers.authorizer
        ),
        webhook=blueprint.lambda_function("webhook")(handlers.webhook),
        webhook_queue=blueprint.on_sqs_message(names.queue, BATCH_SIZE, "webhook_queue")(
            handlers.webhook_queue
        ),
        sweeper=blueprint.schedule(Rate(1, Rate.MINUTES), "sweeper")(handlers.sweeper),
    )


functions = create_functions(
    bootstrap.service(),
    Names(bootstrap.service().settings.stage),
    refuse_in_api=bootstrap.service().settings.under_chalice_local,
)
authorizer = functions.authorizer
webhook = functions.webhook
webhook_queue = functions.webhook_queue
sweeper = functions.sweeper
