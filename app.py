"""The REST API: every route on one screen. Importing this opens no file or connection.

Only under ``chalice local`` does it also start the dispatcher or the pump, which fires timers
beside the server.
"""

from __future__ import annotations

from chalice.app import Chalice, Response

from chalicelib.aws.names import Names
from chalicelib.bootstrap import Service, service
from chalicelib.domain import errors
from chalicelib.domain.next_attempt import next_attempt
from chalicelib.functions import create_functions
from chalicelib.rest import responses
from chalicelib.rest.bulk_requests import ChangeTimers, MoveTimers, ReplayTimers, SetTimers
from chalicelib.rest.list_query import ListTimers
from chalicelib.rest.models import (
    attempt_item,
    clock_advanced,
    next_of,
    replay_result,
    timer_details,
    timer_status,
)
from chalicelib.rest.reading import ApiRequest
from chalicelib.rest.requests import AdvanceClock, MoveTimer, SetKeyedTimer, SetTimer
from chalicelib.rest.router import Router
from chalicelib.rest.service_document import service_document

api = Router[Service]()


@api.get("/", public=True, returns=responses.INDEX, tag="service")
def index(service: Service, _request: ApiRequest) -> Response:
    """Name the routes."""
    return responses.INDEX.response({"routes": api.names(service.settings)})


@api.get("/health", public=True, any_site=True, returns=responses.HEALTHY, tag="service")
def health(service: Service, _request: ApiRequest) -> Response:
    """Tell whether the service can reach its store. Each process checks once a second at most."""
    service.health.check()
    return responses.HEALTHY.response({"status": "ok"})


@api.get("/openapi.json", public=True, returns=responses.DOCUMENT, tag="service")
def describe(service: Service, _request: ApiRequest) -> Response:
    """Describe this API: OpenAPI 3.1 of exactly what runs."""
    return responses.DOCUMENT.response_of(
        service_document(api.routes_of(service.settings), service.settings), {}
    )


@api.post(
    "/timers",
    body=SetTimer,
    returns=responses.CREATED,
    raises=(errors.QuotaExceeded, errors.RateLimited),
    idempotent=True,
)
def set_timer(service: Service, request: ApiRequest[SetTimer]) -> Response:
    """Set a timer. When the response is sent, the timer is on disk.

    After a 503 whose detail says that the request may have been carried out, and only then, there
    may be a timer that was not acknowledged.
    """
    wanted = request.input.timer_request()
    if request.idempotency is None:
        return responses.created(request, service.timers.set(request.tenant, wanted).id)
    done = service.timers.set_once(request.tenant, wanted, request.idempotency)
    return responses.created(request, done.timer_id, replayed=done.replayed)


@api.post("/timers/batch", body=SetTimers, returns=responses.SET_MANY, idempotent=True, tag="many")
def set_timers(service: Service, request: ApiRequest[SetTimers]) -> Response:
    """Set up to 1,000 timers. Each is accepted or refused on its own."""
    wanted = request.input.timer_requests()
    return responses.set_many(service.timers.set_many(request.tenant, wanted, request.idempotency))


@api.get("/timers", query=ListTimers, returns=responses.PAGE)
def list_timers(service: Service, request: ApiRequest[ListTimers]) -> Response:
    """List timers, a page at a time: highest id first, or with `order=due` the next to fire."""
    given, only = request.input, request.input.selection()
    if given.by_due:
        due = service.timers.list_due(
            request.tenant, after=given.after, only=only, limit=given.limit
        )
        return responses.due_page_of(request, due, service.timers.now)
    page = service.timers.list(
        request.tenant, before=given.before, status=given.status, limit=given.limit, only=only
    )
    return responses.page_of(request, page, service.timers.now)


@api.delete("/timers", returns=responses.PURGED, raises=(errors.PurgeDisabled,))
def purge_timers(service: Service, request: ApiRequest) -> Response:
    """Remove every timer of the caller's tenant.

    This is for tests: it is off in stage `prod` unless `TIMERS_ALLOW_PURGE=on`. If there are too
    many timers for one request, the response is 503; call again to go on.
    """
    service.timers.purge(request.tenant)
    return responses.PURGED.response({})


@api.put(
    "/timers/by-key/{key}",
    body=SetKeyedTimer,
    returns=responses.KEYED_SET,
    or_returns=responses.KEYED_MOVED,
    raises=(
        errors.TimerChanged,
        errors.TimerInFlight,
        errors.QuotaExceeded,
        errors.RateLimited,
    ),
)
def set_keyed_timer(service: Service, request: ApiRequest[SetKeyedTimer]) -> Response:
    """Set the timer of a key, or move it, in one atomic step.

    201 with a new id if the key has no pending timer. Otherwise 200: the timer is due at the new
    time, has its attempts anew, and everything else that it sends is replaced.
    """
    keyed = service.timers.set_by_key(
        request.tenant, request.timer_key, request.input.keyed_request()
    )
    return responses.keyed(request, keyed, service.timers.now)


@api.get("/timers/by-key/{key}", returns=responses.TIME_LEFT, raises=(errors.TimerNotFound,))
def get_keyed_timer(service: Service, request: ApiRequest) -> Response:
    """Tell how much time the timer of a key has left: the latest that had the key."""
    timer = service.timers.get_by_key(request.tenant, request.timer_key)
    return responses.TIME_LEFT.response(timer_status(timer, service.timers.now))


@api.delete(
    "/timers/by-key/{key}",
    returns=responses.CANCELLED,
    raises=(errors.TimerNotFound, errors.TimerSettled, errors.TimerInFlight),
)
def cancel_keyed_timer(service: Service, request: ApiRequest) -> Response:
    """Cancel the timer of a key. No attempt starts after the response."""
    service.timers.cancel_by_key(request.tenant, request.timer_key)
    return responses.CANCELLED.response(None)


@api.get("/timers/{timer_id}", returns=responses.TIME_LEFT)
def get_timer(service: Service, request: ApiRequest) -> Response:
    """Tell how much time a timer has left."""
    timer = service.timers.get(request.tenant, request.timer_id)
    return responses.TIME_LEFT.response(timer_status(timer, service.timers.now))


@api.patch(
    "/timers/{timer_id}",
    body=MoveTimer,
    returns=responses.TIME_LEFT,
    raises=(
        errors.TimerExpired,
        errors.TimerInFlight,
        errors.TimerChanged,
        errors.RateLimited,
    ),
)
def move_timer(service: Service, request: ApiRequest[MoveTimer]) -> Response:
    """Move a timer that has not expired to another time."""
    timer = service.timers.move(request.tenant, request.timer_id, request.input.when)
    return responses.TIME_LEFT.response(timer_status(timer, service.timers.now))


@api.delete(
    "/timers/{timer_id}",
    returns=responses.CANCELLED,
    raises=(errors.TimerSettled, errors.TimerInFlight),
)
def cancel_timer(service: Service, request: ApiRequest) -> Response:
    """Cancel a pending timer. No attempt starts after the response.

    A timer that has fired or failed cannot be cancelled: the response is 409 `timer-settled`.
    """
    service.timers.cancel(request.tenant, request.timer_id)
    return responses.CANCELLED.response(None)


@api.post(
    "/timers/{timer_id}/fire",
    returns=responses.FIRED,
    raises=(
        errors.TimerInFlight,
        errors.TimerSettled,
        errors.TimerChanged,
        errors.RateLimited,
    ),
)
def fire_timer(service: Service, request: ApiRequest) -> Response:
    """Call the webhook of a pending timer now, before its time or before its next retry.

    This is its next attempt: `webhook-id` is the same, and earlier attempts count. A timer whose
    time has not come is due by now: its `time_left` is 0.
    """
    timer = service.timers.fire(request.tenant, request.timer_id)
    return responses.FIRED.response({"id": timer.id})


@api.get("/timers/{timer_id}/details", returns=responses.DETAILS)
def get_details(service: Service, request: ApiRequest) -> Response:
    """Show everything stored of a timer, when it is called next, and because of what.

    A body is shown by size and type, a header by its name: no response shows their values.
    """
    timer = service.timers.get(request.tenant, request.timer_id)
    now = service.timers.now
    coming = next_attempt(timer, service.settings.retry_delays_s, now)
    return responses.DETAILS.response(timer_details(timer, coming, now))


@api.post("/timers/cancel", body=ChangeTimers, returns=responses.CANCELLED_MANY, tag="many")
def cancel_timers(service: Service, request: ApiRequest[ChangeTimers]) -> Response:
    """Count the pending timers that match, or cancel those that are not in flight."""
    given = request.input
    done = service.bulk.cancel(request.tenant, given.chosen(), dry_run=given.dry_run)
    return responses.CANCELLED_MANY.response(
        {"matching": done.matching, "cancelled": done.changed, "next": next_of(done)}
    )


@api.post(
    "/timers/fire",
    body=ChangeTimers,
    returns=responses.FIRED_MANY,
    raises=(errors.RateLimited,),
    tag="many",
)
def fire_timers(service: Service, request: ApiRequest[ChangeTimers]) -> Response:
    """Count the pending timers that match, or call those that are not in flight now."""
    given = request.input
    done = service.bulk.fire(request.tenant, given.chosen(), dry_run=given.dry_run)
    return responses.FIRED_MANY.response(
        {"matching": done.matching, "fired": done.changed, "next": next_of(done)}
    )


@api.post(
    "/timers/move",
    body=MoveTimers,
    returns=responses.MOVED_MANY,
    raises=(errors.RateLimited,),
    tag="many",
)
def move_timers(service: Service, request: ApiRequest[MoveTimers]) -> Response:
    """Count the pending timers that match, or move those whose time has not come."""
    given = request.input
    done = service.bulk.move(request.tenant, given.chosen(), given.when, dry_run=given.dry_run)
    return responses.MOVED_MANY.response(
        {"matching": done.matching, "moved": done.changed, "next": next_of(done)}
    )


@api.get("/timers/{timer_id}/attempts", returns=responses.ATTEMPTS, tag="failures")
def list_attempts(service: Service, request: ApiRequest) -> Response:
    """List the attempts to call a timer's webhook, oldest first."""
    timer = service.timers.get(request.tenant, request.timer_id)
    return responses.ATTEMPTS.response([attempt_item(attempt) for attempt in timer.log])


@api.post(
    "/timers/{timer_id}/replay",
    returns=responses.REPLAYED,
    raises=(
        errors.TimerNotFailed,
        errors.TimerInFlight,
        errors.TimerChanged,
        errors.RateLimited,
    ),
    tag="failures",
)
def replay_timer(service: Service, request: ApiRequest) -> Response:
    """Replay a timer that failed. Its webhook is called at once, and it has all attempts again."""
    timer = service.dead_letters.replay(request.tenant, request.timer_id)
    return responses.REPLAYED.response({"id": timer.id})


@api.post(
    "/timers/replay",
    body=ReplayTimers,
    returns=responses.REPLAY_RESULT,
    raises=(errors.RateLimited,),
    tag="failures",
)
def replay_timers(service: Service, request: ApiRequest[ReplayTimers]) -> Response:
    """Count the failed timers that match, or replay them."""
    given = request.input
    done = service.dead_letters.replay_all(request.tenant, given.chosen(), given.per_s)
    return responses.REPLAY_RESULT.response(replay_result(done))


@api.post(
    "/_clock/advance",
    body=AdvanceClock,
    returns=responses.ADVANCED,
    raises=(errors.ClockMoving, errors.AdvanceUnfinished),
    test_clock=True,
    tag="service",
)
def advance_clock(service: Service, request: ApiRequest[AdvanceClock]) -> Response:
    """Move the test clock, and call every webhook that is due on the way, in order."""
    advanced = service.clock.advance(request.tenant, request.input.delay_ms)
    return responses.ADVANCED.response(clock_advanced(advanced))


def create_app(service: Service) -> Chalice:
    """Return the Chalice app: the API and the Lambda functions of ``service``."""
    names, refuse_in_api = Names(service.settings.stage), service.settings.under_chalice_local
    # Not those of ``chalicelib.functions``: they belong to this process's service, and tests make
    # apps of other services.
    functions = create_functions(service, names, refuse_in_api=refuse_in_api)
    return api.app("timers", service, functions.blueprint, functions.authorizer)


# Chalice and Lambda find the app under this name.
app = create_app(service())
if service().settings.under_chalice_local:
    from local import chalice_local

    chalice_local.start(service())
