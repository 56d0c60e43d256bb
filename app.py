"""The REST API: every route, and nothing else. Importing this starts nothing and opens nothing,
except under ``chalice local``, where the dispatcher that fires timers runs beside the server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chalice.app import Chalice, Request, Response

from chalicelib import wiring
from chalicelib.functions import authorizer, functions
from chalicelib.rest import http as rest
from chalicelib.rest.schemas import (
    MoveTimer,
    ReplayTimers,
    SetTimer,
    attempt_item,
    replayed,
    timer_status,
)

app = Chalice(app_name="timers", configure_logs=False)
app.api.binary_types = []
app.register_blueprint(functions)
endpoint = rest.endpoints(app)
needs_key = wiring.settings().needs_key
tenant_endpoint = rest.tenant_endpoints(app, needs_key=needs_key)
caller = authorizer if needs_key else None
wiring.start_under_chalice_local()


@app.middleware("http")
def observe(request: Request, get_response: Callable[[Any], Response]) -> Response:
    """Log and count, in a Lambda, under the request's id."""
    with wiring.observed(request.lambda_context):
        return get_response(request)


app.register_middleware(rest.own_problems, "http")


@app.middleware("http")
def admit(request: Request, get_response: Callable[[Any], Response]) -> Response:
    """Refuse, offline, what no program of this machine sent."""
    return rest.admitted(request, get_response, wiring.settings())


@app.route("/", methods=["GET"], content_types=rest.ANY_TYPE)
@endpoint
def index(_request: Request) -> Response:
    """Name the routes."""
    return rest.answer({"routes": rest.routes(app.routes)})


@app.route("/health", methods=["GET"], content_types=rest.ANY_TYPE)
@endpoint
def health(_request: Request) -> Response:
    """Tell whether the service can reach its store."""
    wiring.scheduling().check()
    return rest.answer({"status": "ok"})


@app.route("/timers", methods=["POST"], authorizer=caller, content_types=rest.ANY_TYPE)
@tenant_endpoint
def set_timer(request: Request, tenant: str) -> Response:
    """Set a timer."""
    wanted = SetTimer.parse(rest.json_body(request), wiring.limits())
    timer = wiring.scheduling().set(tenant, wanted.order())
    return rest.created(request, timer.id)


@app.route("/timers", methods=["GET"], authorizer=caller, content_types=rest.ANY_TYPE)
@tenant_endpoint
def list_timers(request: Request, tenant: str) -> Response:
    """List timers, highest id first, a page at a time."""
    query = rest.list_query(request)
    page = wiring.scheduling().list(tenant, **query)
    return rest.listing(request, page, query, wiring.scheduling().now)


@app.route("/timers", methods=["DELETE"], authorizer=caller, content_types=rest.ANY_TYPE)
@tenant_endpoint
def purge_timers(_request: Request, tenant: str) -> Response:
    """Remove every timer, where that is allowed."""
    wiring.scheduling().purge(tenant)
    return rest.answer({})


@app.route("/timers/{timer_id}", methods=["GET"], authorizer=caller, content_types=rest.ANY_TYPE)
@tenant_endpoint
def get_timer(_request: Request, tenant: str, timer_id: str) -> Response:
    """Tell how much time a timer has left."""
    timer = wiring.scheduling().get(tenant, rest.timer_id(timer_id))
    return rest.answer(timer_status(timer, wiring.scheduling().now))


@app.route("/timers/{timer_id}", methods=["PATCH"], authorizer=caller, content_types=rest.ANY_TYPE)
@tenant_endpoint
def move_timer(request: Request, tenant: str, timer_id: str) -> Response:
    """Give a timer that has not expired another time."""
    wanted = MoveTimer.parse(rest.json_body(request))
    scheduling = wiring.scheduling()
    timer = scheduling.move(tenant, rest.timer_id(timer_id), wanted.delay_ms)
    return rest.answer(timer_status(timer, scheduling.now))


@app.route("/timers/{timer_id}", methods=["DELETE"], authorizer=caller, content_types=rest.ANY_TYPE)
@tenant_endpoint
def cancel_timer(_request: Request, tenant: str, timer_id: str) -> Response:
    """Cancel a timer."""
    wiring.scheduling().cancel(tenant, rest.timer_id(timer_id))
    return rest.removed()


@app.route(
    "/timers/{timer_id}/attempts", methods=["GET"], authorizer=caller, content_types=rest.ANY_TYPE
)
@tenant_endpoint
def list_attempts(_request: Request, tenant: str, timer_id: str) -> Response:
    """Tell what came of a timer's calls, oldest first."""
    timer = wiring.scheduling().get(tenant, rest.timer_id(timer_id))
    return rest.answer([attempt_item(attempt) for attempt in timer.log])


@app.route(
    "/timers/{timer_id}/replay", methods=["POST"], authorizer=caller, content_types=rest.ANY_TYPE
)
@tenant_endpoint
def replay_timer(_request: Request, tenant: str, timer_id: str) -> Response:
    """Call a timer that failed for good once more."""
    timer = wiring.dead_letters().replay(tenant, rest.timer_id(timer_id))
    return rest.answer({"id": timer.id}, 202)


@app.route("/timers/replay", methods=["POST"], authorizer=caller, content_types=rest.ANY_TYPE)
@tenant_endpoint
def replay_timers(request: Request, tenant: str) -> Response:
    """Count the failed timers that match, or replay them."""
    wanted = ReplayTimers.parse(rest.json_body(request))
    outcome = wiring.dead_letters().replay_all(tenant, wanted.wanted(), wanted.per_s)
    return rest.answer(replayed(outcome))
