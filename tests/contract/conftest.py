"""Every store and every sender: each contract test runs once on each of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from chalicelib.aws.dynamodb.api_keys import DynamoDBApiKeyStore
from chalicelib.domain.rate import Rate
from chalicelib.domain.ssrf_guard import Guard
from chalicelib.embedded.api_keys import SQLiteApiKeyStore
from chalicelib.embedded.folder import DataFolder
from chalicelib.service.ports import ApiKeyStore
from tests.contract import stores
from tests.contract.certificate import Authority
from tests.contract.senders import (
    AMPLE_S,
    AS_SERVED,
    OPEN,
    SENDERS,
    ClosableSender,
    Listen,
    Make,
    Start,
)
from tests.contract.socket_receiver import Receiver, Response
from tests.contract.stores import Store
from tests.support.clock import ManualClock
from tests.support.dynamodb import empty_table


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def rate() -> Rate | None:
    """Return the rate of creates per tenant: no limit, unless a module says otherwise."""
    return None


@pytest.fixture(params=["sqlite", "dynamodb", "remote"])
def store(
    request: pytest.FixtureRequest, clock: ManualClock, rate: Rate | None, tmp_path: Path
) -> Iterator[Store]:
    """Return an empty store."""
    with ExitStack() as opened:
        if request.param == "sqlite":
            yield opened.enter_context(stores.sqlite_in_memory(rate))
        elif request.param == "dynamodb":
            client = request.getfixturevalue("dynamodb")
            table = opened.enter_context(empty_table(client))
            yield opened.enter_context(stores.dynamodb(client, table, clock, rate))
        else:
            yield opened.enter_context(stores.remote(DataFolder(tmp_path / "data"), rate))


@pytest.fixture(params=["sqlite", "dynamodb"])
def key_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ApiKeyStore]:
    """Return an empty store of keys."""
    if request.param == "sqlite":
        yield SQLiteApiKeyStore(DataFolder(tmp_path / "data"))
    else:
        client = request.getfixturevalue("dynamodb")
        with empty_table(client) as table:
            yield DynamoDBApiKeyStore(client, table)


@pytest.fixture(params=SENDERS)
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Return a function that makes a sender with a deadline."""
    with _starting(SENDERS[request.param]) as started:
        yield started


@pytest.fixture(params=AS_SERVED)
def start_as_served(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Return a function like ``start``, for every event loop that the service uses."""
    with _starting(AS_SERVED[request.param]) as started:
        yield started


@contextmanager
def _starting(make: Make) -> Iterator[Start]:
    senders: list[ClosableSender] = []

    def started(deadline_s: float = AMPLE_S, guard: Guard = OPEN, **options: Any) -> ClosableSender:
        senders.append(make(deadline_s, guard, **options))
        return senders[-1]

    yield started
    for sender in senders:
        sender.close()


@pytest.fixture
def sender(start: Start) -> ClosableSender:
    return start()


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Return a function that makes a receiver with these responses."""
    receivers: list[Receiver] = []

    def listening(*responses: Response, **options: Any) -> Receiver:
        receivers.append(Receiver(*responses, **options))
        return receivers[-1]

    yield listening
    for receiver in receivers:
        receiver.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """Make every sender trust the authority of the tests, and no other."""
    # OpenSSL's own setting, for the sender that uses the system's trust. requests has none.
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(authority.file))
    return authority
