"""The AWS engine's storage on DynamoDB (moto), where each call of the boto3 client may fail.

One operation of the store makes several such calls, and a fault can occur between any two.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError, ReadTimeoutError

from chalicelib.aws.dynamodb import rows
from chalicelib.aws.dynamodb.due_index import DynamoDBDueIndex
from chalicelib.aws.dynamodb.store import DynamoDBTimerStore
from chalicelib.aws.key_holder import names_of
from chalicelib.aws.waking_store import ArmableStore
from chalicelib.domain.claim import Claimed
from chalicelib.domain.errors import TimerNotFound
from chalicelib.domain.timer import Timer
from chalicelib.service.ports import DueIndex
from tests.simulation.fault_injector import FaultInjector
from tests.simulation.invariants.claims import row_is_in_the_due_index_while_outstanding
from tests.simulation.oracle import Oracle
from tests.simulation.processes import Process
from tests.simulation.storage import NewStorage, Storage
from tests.simulation.virtual_time import VirtualTime
from tests.support.dynamodb import dynamodb_on_moto, empty_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class DynamoDBStorage:
    """One table of moto."""

    def __init__(self, client: DynamoDBClient, table: str, rng: random.Random) -> None:
        self._client = client
        self._table = table
        self._rng = rng
        self._store = DynamoDBTimerStore(client, table, lambda: 0.0)

    def connect(
        self, process: Process, time: VirtualTime, faults: FaultInjector, oracle: Oracle
    ) -> tuple[ArmableStore, DueIndex]:
        client: Any = _FaultyClient(self._client, time, faults, oracle, self._rng)
        store = DynamoDBTimerStore(
            client, self._table, process.clock, sleep=lambda seconds: time.pause(seconds * 1000)
        )
        observed: Any = _ObservedStore(store, time, oracle)
        return observed, DynamoDBDueIndex(client, self._table)

    def row(self, tenant: str, timer_id: int) -> Timer | None:
        try:
            return self._store.get(tenant, timer_id)
        except TimerNotFound:
            return None

    def rows(self) -> Sequence[Timer]:
        pages = self._client.get_paginator("scan").paginate(
            TableName=self._table, ConsistentRead=True
        )
        items = [item for page in pages for item in page["Items"] if "url" in item]
        for item in items:
            row_is_in_the_due_index_while_outstanding(item)
        return [rows.timer_of(item) for item in items]


@contextmanager
def dynamodb_storages() -> Iterator[NewStorage]:
    """Yield a function that opens a new table for each run."""
    shards, rows.SHARDS = rows.SHARDS, 2  # each sweep queries all of them
    try:
        with dynamodb_on_moto() as client:

            @contextmanager
            def new(rng: random.Random) -> Iterator[Storage]:
                with empty_table(client) as table:
                    yield DynamoDBStorage(client, table, rng)

            yield new
    finally:
        rows.SHARDS = shards


class _ObservedStore:
    """A store that notes, in its task, which operation the calls of the client belong to."""

    def __init__(self, store: DynamoDBTimerStore, time: VirtualTime, oracle: Oracle) -> None:
        self._store = store
        self._time = time
        self._oracle = oracle
        self.keys = store.keys

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._store, name)

        def call(*arguments: Any, **options: Any) -> Any:
            task = self._time.task
            task.operation = (name, *arguments)
            try:
                result = method(*arguments, **options)
            finally:
                task.operation = None
            if name == "settle" and not result:
                self._oracle.settle_refused()
            if name == "claim" and not isinstance(result, Claimed):
                self._oracle.claim_refused(result)
            return result

        return call


class _FaultyClient:
    """A boto3 client of DynamoDB whose calls take time and may fail."""

    def __init__(
        self,
        client: DynamoDBClient,
        time: VirtualTime,
        faults: FaultInjector,
        oracle: Oracle,
        rng: random.Random,
    ) -> None:
        self._client = client
        self._time = time
        self._faults = faults
        self._oracle = oracle
        self._rng = rng

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(**request: Any) -> Any:
            operation = self._time.task.operation

            def work() -> Any:
                response = method(**request)
                self._tell_oracle(operation, name, request, response)
                return _Response(response)

            return self._faults.call(
                f"dynamodb.{name}",
                work,
                _key(request),
                lost=self._lost,
                repeats=True,
                instant=_reserves_ids(operation, name),
                may_be_late=not _sets_keyed_timer(operation, name),
            )

        return call

    def _lost(self) -> Exception:
        code = self._rng.choice(("ThrottlingException", "InternalServerError", None))
        if code is None:
            return ReadTimeoutError(endpoint_url="https://dynamodb.example")
        return ClientError({"Error": {"Code": code, "Message": ""}}, "Any")

    def _tell_oracle(self, operation: Any, name: str, request: Any, response: Any) -> None:
        if operation is None:
            return
        what, *about = operation
        if (what, name) == ("put", "put_item"):
            self._oracle.stored(rows.timer_of(request["Item"]))
        elif (what, name) == ("claim", "update_item"):
            self._oracle.claimed(about[0], rows.timer_of(response["Attributes"]))
        elif (what, name) == ("settle", "update_item"):
            self._oracle.settled(about[0])
        elif (what, name) == ("cancel", "delete_item"):
            self._oracle.cancelled(*about)
        elif (what, name) == ("reschedule", "update_item"):
            self._oracle.rescheduled(about[0])
        elif (what, name) == ("replace", "update_item"):
            self._oracle.replaced(rows.timer_of(response["Attributes"]))


def _reserves_ids(operation: Any, name: str) -> bool:
    """Return whether this call is made under the lock of the process's id blocks."""
    return operation is not None and (operation[0], name) == ("next_id", "update_item")


def _sets_keyed_timer(operation: Any, name: str) -> bool:
    """Return whether this call writes the row of a new timer that has keys."""
    return (
        operation is not None
        and (operation[0], name) == ("put", "put_item")
        and bool(names_of(operation[1]))
    )


class _Response(dict[str, Any]):
    """A response whose text in the trace has no random parts."""

    def __str__(self) -> str:
        row = self.get("Attributes", {})
        return " ".join(
            f"{name}={next(iter(row[name].values()))}"
            for name in ("version", "attempts", "next_attempt_at", "lease_until")
            if name in row
        )


def _key(request: Any) -> str:
    key = request.get("Key") or request.get("Item")
    if key is None:
        return ""
    return f"{key['pk']['S']}/{key['id']['N']}"
