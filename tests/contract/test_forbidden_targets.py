"""No sender connects to a forbidden address, for any URL, name or redirect.

Connections are observed at the sockets, and by a listener on this machine.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from ipaddress import ip_network

import pytest

from chalicelib.domain.ssrf_guard import MAX_ADDRESSES, MAX_CHECKED, Guard
from chalicelib.domain.target import prepare
from chalicelib.domain.timer import Timer
from chalicelib.domain.webhook import Call, Outcome
from chalicelib.service.ports import Sender
from tests.contract.certificate import Authority
from tests.contract.hostile import HOSTILE, LANDS_HERE, NAMES
from tests.contract.network import PUBLIC, ConnectionRecorder, FakeResolver, recorded, resolve
from tests.contract.senders import OPEN, Listen, Start, call
from tests.contract.socket_receiver import Receiver, respond, respond_and_close

GUARDED = Guard()
HERE = "127.0.0.1"
ONLY_LOOPBACK = Guard(allowed=(ip_network("127.0.0.1/32"),))
"""Allows the listener of a test, and no other address that is not public."""


@pytest.fixture
def connections() -> Iterator[ConnectionRecorder]:
    with recorded() as recorder:
        yield recorder


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> FakeResolver:
    """The names of the hostile URLs, and no others."""
    return resolve(monkeypatch, NAMES)


@pytest.fixture
def start(start_as_served: Start) -> Start:
    return start_as_served


def send(sender: Sender, url: str) -> Outcome:
    """Send to ``url`` as the service does. It refuses some URLs before the sender sees them."""
    timer = Timer(tenant="t", id=7, url=url, created_at=0, due_at=0, next_attempt_at=0)
    try:
        prepared = prepare(timer, "store", now=0)
    except ValueError as error:
        return Outcome(error=str(error))
    return sender.send(prepared)


def send_unchecked(sender: Sender, url: str) -> Outcome:
    """Send to ``url`` without the checks that come before the sender."""
    return sender.send(Call(url=url, headers={}))


Send = Callable[[Sender, str], Outcome]


def at(receiver: Receiver, name: str) -> str:
    return f"http://{name}:{receiver.port}/hook"


# Hostile URLs


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("send_by", [send, send_unchecked])
@pytest.mark.parametrize("url", HOSTILE)
def test_a_hostile_url_leads_to_no_forbidden_address(
    url: str, send_by: Send, start: Start, listen: Listen, connections: ConnectionRecorder
) -> None:
    canary = listen()
    outcome = send_by(start(guard=GUARDED), url.replace("{port}", str(canary.port)))
    assert outcome.status is None
    assert outcome.error
    assert set(connections.addresses) <= set(PUBLIC)
    assert canary.connections == 0


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("url", LANDS_HERE)
def test_without_a_guard_the_same_urls_are_seen_to_connect(
    url: str,
    start: Start,
    listen: Listen,
    connections: ConnectionRecorder,
) -> None:
    canary = listen()
    assert send(start(guard=OPEN), url.replace("{port}", str(canary.port))).status == 200
    assert canary.connections == 1
    assert connections.addresses


@pytest.mark.usefixtures("names")
def test_a_public_address_is_connected_to(start: Start, connections: ConnectionRecorder) -> None:
    outcome = send(start(guard=GUARDED), "http://good.example/hook")
    assert "refused" in (outcome.error or "")
    assert connections.addresses == [PUBLIC[0]]


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/",
        "http://localhost:{port}/",
        "//127.0.0.2:{port}/",
        "http://loopback.example:{port}/",
    ],
)
def test_a_redirect_to_a_forbidden_address_is_not_followed(
    status: int, location: str, start: Start, listen: Listen, connections: ConnectionRecorder
) -> None:
    canary = listen()
    receiver = listen(respond(status, "Location: " + location.replace("{port}", str(canary.port))))
    assert start(guard=ONLY_LOOPBACK).send(call(receiver)) == Outcome(status=status)
    assert connections.addresses == [HERE]
    assert canary.connections == 0


# FakeResolver that resolve to another address the second time (DNS rebinding)


@pytest.mark.parametrize("late", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1"])
def test_a_name_that_turns_forbidden_after_the_look_up_is_looked_up_once(
    late: str, start: Start, connections: ConnectionRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = resolve(monkeypatch, {"rebinding.example": [[PUBLIC[0]], [late]]})
    send(start(guard=GUARDED), "http://rebinding.example/hook")
    assert names.asked == ["rebinding.example"]
    assert connections.addresses == [PUBLIC[0]]


def test_a_name_that_turns_public_after_the_look_up_is_refused(
    start: Start, connections: ConnectionRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = resolve(monkeypatch, {"rebinding.example": [["127.0.0.1"], [PUBLIC[0]]]})
    outcome = send(start(guard=GUARDED), "http://rebinding.example/hook")
    assert "must not be called" in (outcome.error or "")
    assert names.asked == ["rebinding.example"]
    assert connections.addresses == []


def test_a_name_that_turns_forbidden_between_two_calls_is_not_followed(
    start: Start, connections: ConnectionRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, {"rebinding.example": [[PUBLIC[0]], ["127.0.0.1"], [PUBLIC[1]], ["::1"]]})
    sender = start(guard=GUARDED)
    for _ in range(6):
        assert send(sender, "http://rebinding.example/hook").status is None
    assert set(connections.addresses) <= set(PUBLIC)


def test_the_sender_connects_to_the_address_that_was_checked(
    start: Start, listen: Listen, connections: ConnectionRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = resolve(monkeypatch, {"hook.example": [[HERE], ["10.0.0.1"]]})
    receiver = listen()
    assert send(start(guard=ONLY_LOOPBACK), at(receiver, "hook.example")).status == 200
    assert names.asked == ["hook.example"]
    assert connections.addresses == [HERE]
    assert receiver.requests[0].headers["host"] == f"hook.example:{receiver.port}"


def test_only_the_first_addresses_of_a_name_are_tried(
    start: Start, connections: ConnectionRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [f"93.184.{part}.34" for part in range(1, 200)]
    resolve(monkeypatch, {"many.example": [many]})
    assert send(start(guard=GUARDED), "http://many.example/hook").status is None
    assert connections.addresses == many[:MAX_ADDRESSES]


def test_a_name_with_too_many_addresses_is_refused(
    start: Start, connections: ConnectionRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [f"93.184.{number // 250}.{number % 250 + 1}" for number in range(MAX_CHECKED + 1)]
    resolve(monkeypatch, {"many.example": [many]})
    outcome = send(start(guard=GUARDED), "http://many.example/hook")
    assert outcome.error == f"many.example stands for more than {MAX_CHECKED} addresses"
    assert connections.addresses == []


# TLS: to the checked address, for the name


def asked_for(context: ssl.SSLContext) -> list[str | None]:
    """Return a list that collects the names clients ask ``context`` for (SNI)."""
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    return names


def test_tls_is_negotiated_with_the_checked_address_for_the_name(
    start: Start,
    listen: Listen,
    connections: ConnectionRecorder,
    monkeypatch: pytest.MonkeyPatch,
    trusted: Authority,
) -> None:
    resolve(monkeypatch, {"hook.example": [[HERE], ["10.0.0.1"]]})
    server = trusted.server("hook.example")
    names = asked_for(server)
    receiver = listen(tls=server)
    sender = start(guard=ONLY_LOOPBACK)
    for _ in range(2):
        assert send(sender, f"https://hook.example:{receiver.port}/hook") == Outcome(status=200)
    assert names == ["hook.example"]
    assert connections.addresses == [HERE]
    assert receiver.requests[0].headers["host"] == f"hook.example:{receiver.port}"


def test_the_certificate_of_another_name_is_not_accepted(
    start: Start,
    listen: Listen,
    connections: ConnectionRecorder,
    monkeypatch: pytest.MonkeyPatch,
    trusted: Authority,
) -> None:
    resolve(monkeypatch, {"hook.example": [[HERE]]})
    receiver = listen(tls=trusted.server("other.example"))
    outcome = send(start(guard=ONLY_LOOPBACK), f"https://hook.example:{receiver.port}/hook")
    assert (outcome.error or "").startswith("TLS failed: ")
    assert connections.addresses == [HERE]
    assert receiver.requests == []


# Kept connections


def test_a_kept_connection_outlives_its_name_but_leads_nowhere_else(
    start: Start, listen: Listen, connections: ConnectionRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, {"hook.example": [[HERE], ["10.0.0.1"]]})
    receiver = listen()
    sender = start(guard=ONLY_LOOPBACK)
    for _ in range(3):
        assert send(sender, at(receiver, "hook.example")).status == 200
    assert [request.connection for request in receiver.requests] == [1, 1, 1]
    assert connections.addresses == [HERE]


def test_a_kept_connection_that_closed_is_replaced_by_a_checked_one_only(
    start: Start, listen: Listen, connections: ConnectionRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, {"hook.example": [[HERE], ["10.0.0.1"]]})
    receiver = listen(respond_and_close)
    sender = start(guard=ONLY_LOOPBACK)
    for _ in range(5):
        send(sender, at(receiver, "hook.example"))
    assert set(connections.addresses) == {HERE}


def test_a_kept_connection_serves_no_other_name(
    start: Start, listen: Listen, connections: ConnectionRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, {"hook.example": [[HERE]], "other.example": [["10.0.0.1"]]})
    receiver = listen()
    sender = start(guard=ONLY_LOOPBACK)
    assert send(sender, at(receiver, "hook.example")).status == 200
    outcome = send(sender, at(receiver, "other.example"))
    assert outcome.error == "other.example stands for an address that must not be called"
    assert len(receiver.requests) == 1
    assert connections.addresses == [HERE]


# Exceptions by settings


def test_an_allowed_network_may_be_called_and_no_other(
    start: Start, listen: Listen, connections: ConnectionRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(
        monkeypatch,
        {"ours.example": [[HERE]], "not.example": [["10.0.0.1"]], "both.example": [[HERE, "::1"]]},
    )
    receiver = listen()
    sender = start(guard=ONLY_LOOPBACK)
    assert send(sender, at(receiver, HERE)).status == 200
    assert send(sender, at(receiver, "ours.example")).status == 200
    for name in ("127.0.0.2", "10.0.0.1", "[::1]", "0.0.0.0", "not.example", "both.example"):
        assert "must not be called" in (send(sender, at(receiver, name)).error or "")
    assert set(connections.addresses) == {HERE}


@pytest.mark.usefixtures("names")
def test_a_metadata_service_is_not_called_even_where_private_addresses_are(
    start: Start, connections: ConnectionRecorder
) -> None:
    sender = start(guard=OPEN)
    for host in ("169.254.169.254", "metadata", "[::ffff:169.254.169.254]", "[fd00:ec2::254]"):
        assert "must not be called" in (send(sender, f"http://{host}/latest").error or "")
    assert connections.addresses == []
