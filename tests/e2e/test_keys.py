"""A server that needs API keys, and the commands that change them while it runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import MakeServer
from tests.e2e.raw import RawResponse, conversation
from tests.e2e.receiver import Receiver
from tests.e2e.server import PROJECT, Server
from tests.e2e.test_chalice_local import FIXED, project
from tests.support.waiting import PATIENCE_S

__all__ = ["project"]

UNKNOWN = "Bearer wt_" + "x" * 43


@pytest.fixture(params=["make run", "chalice local"])
def server(
    request: pytest.FixtureRequest, make_server: MakeServer, tmp_path: Path, project: Path
) -> Server:
    settings = {"TIMERS_AUTH": "keys", "TIMERS_ALLOW_PRIVATE": "on"}  # the receiver is on loopback
    if request.param == "make run":
        server = make_server(**settings)
    else:
        server = make_server(command=FIXED, project=project, **settings)
    server.start()
    return server


def keys(server: Server, *arguments: str) -> str:
    """Run the command that ``make key``, ``keys`` and ``revoke`` run; return what it prints."""
    ran = subprocess.run(
        [sys.executable, "-m", "local.keys", *arguments],
        cwd=PROJECT,
        env=server.environment,
        capture_output=True,
        check=True,
        text=True,
        timeout=PATIENCE_S,
    )
    return ran.stdout


def new_key(server: Server, tenant: str) -> str:
    """Make a key; return it as the header's value."""
    return "Bearer " + keys(server, "issue", tenant).splitlines()[0]


def send_request(
    server: Server, method: str, path: str, *headers: str, body: str = ""
) -> RawResponse:
    lines = ["Host: timers.example", "Content-Type: application/json", *headers]
    lines += [f"Content-Length: {len(body)}"]
    with conversation(server.port) as connection:
        connection.send(f"{method} {path} HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n" + body)
        return connection.response()


def test_keys_are_made_and_revoked_while_the_server_runs(
    server: Server, receiver: Receiver
) -> None:
    body = f'{{"seconds": 0, "url": "{receiver.url("ok")}"}}'
    assert send_request(server, "GET", "/").status == 200
    assert send_request(server, "GET", "/health").status == 200
    for headers in ([], ["Authorization: x"], [f"Authorization: {UNKNOWN}"]):
        response = send_request(server, "POST", "/timers", *headers, body=body)
        assert response.status == 401
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.json()["type"] == "urn:webhook-timers:unauthorized"

    acme, other = new_key(server, "acme"), new_key(server, "other")
    for token in (acme, other, acme.replace("Bearer", "bearer")):
        response = send_request(server, "POST", "/timers", f"Authorization: {token}", body=body)
        assert response.status == 201, response
    assert [send_request(server, "GET", f"/timers/{number}", f"Authorization: {other}").status
            for number in (1, 2)] == [200, 404]  # fmt: skip
    receiver.wait_for(2, "/ok/1")
    receiver.wait_for(1, "/ok/2")

    spare = new_key(server, "acme")
    spare_id = re.findall(r"^(\w+) .* acme$", keys(server, "list"), re.MULTILINE)[-1]
    keys(server, "revoke", spare_id)
    assert send_request(server, "GET", "/timers", f"Authorization: {spare}").status == 401
    assert send_request(server, "GET", "/timers", f"Authorization: {acme}").status == 200


def test_a_tenant_reaches_nothing_on_this_machine_unless_that_is_allowed(
    make_server: MakeServer, receiver: Receiver
) -> None:
    server = make_server(TIMERS_AUTH="keys")
    server.start()
    acme = new_key(server, "acme")
    body = f'{{"seconds": 0, "url": "{receiver.url("ok")}"}}'
    response = send_request(server, "POST", "/timers", f"Authorization: {acme}", body=body)
    assert response.status == 422
    assert "TIMERS_ALLOW_PRIVATE" in response.json()["errors"][0]["message"]


def test_the_banner_says_how_to_get_a_key_and_no_key_is_ever_printed(
    make_server: MakeServer,
) -> None:
    server = make_server(TIMERS_AUTH="keys")
    server.start()
    token = new_key(server, "acme")
    for value in (token, UNKNOWN, "Bearer wt_short"):
        send_request(server, "GET", "/timers", f"Authorization: {value}")
    assert "make key" in server.output
    assert "-H 'Authorization: Bearer wt_...'" in server.output
    assert token.removeprefix("Bearer ") not in server.output
    assert "Traceback" not in server.output


def test_keys_outlive_the_server(make_server: MakeServer) -> None:
    server = make_server(TIMERS_AUTH="keys")
    token = new_key(server, "acme")
    for _ in range(2):
        server.start()
        assert send_request(server, "GET", "/timers", f"Authorization: {token}").status == 200
        server.kill()
