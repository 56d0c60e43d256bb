"""The AWS engine: DynamoDB, SQS, EventBridge Scheduler and ``requests``, connected to each other.

Each part is made, and its module imported, when it is first used. The Lambdas use different parts,
and every import and every client slows a cold start.
"""

from __future__ import annotations

import functools
import random
import secrets
import time
from functools import cached_property
from typing import TYPE_CHECKING

from chalicelib.aws.names import Names
from chalicelib.service.attempt import DeliveryPolicy, SigningKeys
from chalicelib.service.delivery import Delivery, Effects
from chalicelib.service.options import EngineOptions
from chalicelib.service.sweep import Sweeper

if TYPE_CHECKING:
    from chalicelib.aws.clients import Clients
    from chalicelib.aws.dynamodb.api_keys import DynamoDBApiKeyStore
    from chalicelib.aws.dynamodb.due_index import DynamoDBDueIndex
    from chalicelib.aws.wakeups import AwsWakeups
    from chalicelib.aws.waking_store import WakingTimerStore

SWEEP_BUDGET_MS = 45_000
"""How long one sweep may take. Its function has 60 s, and the next sweep starts after a minute."""


class AwsEngine:
    """One stage on AWS, or on an emulator of it."""

    request_budget_ms = 20_000.0
    """API Gateway gives a request 29 s (AWS limit)."""

    def __init__(
        self, names: Names, options: EngineOptions, *, near_s: int, clients: Clients | None = None
    ) -> None:
        """``near_s`` is the longest delay, in seconds, that is left to SQS (AWS limit: 900)."""
        self.names = names
        self._options = options
        self._near_s = near_s
        self._given_clients = clients

    @cached_property
    def clients(self) -> Clients:
        """The boto3 clients."""
        from chalicelib.aws.clients import Clients

        return self._given_clients or Clients()

    @cached_property
    def timers(self) -> WakingTimerStore:
        """The store of timers."""
        from chalicelib.aws.dynamodb.store import DynamoDBTimerStore
        from chalicelib.aws.waking_store import WakingTimerStore

        options = self._options
        rows = DynamoDBTimerStore(
            self.clients.dynamodb,
            self.names.table,
            options.clock,
            retention_days=options.retention_days,
            rate=options.rate,
        )
        return WakingTimerStore(rows, self.wakeups, options.clock, options.meter)

    @cached_property
    def wakeups(self) -> AwsWakeups:
        """SQS for near wake-ups, EventBridge Scheduler for far ones."""
        from chalicelib.aws.wakeups import AwsWakeups

        return AwsWakeups(
            self.clients.sqs,
            lambda: self.clients.scheduler,
            self.names,
            self._options.clock,
            near_s=self._near_s,
        )

    @cached_property
    def api_keys(self) -> DynamoDBApiKeyStore:
        """The store of API keys."""
        from chalicelib.aws.dynamodb.api_keys import DynamoDBApiKeyStore

        return DynamoDBApiKeyStore(self.clients.dynamodb, self.names.table)

    @cached_property
    def delivery(self) -> Delivery:
        """The use case of the functions that deliver wake-ups."""
        from chalicelib.aws.sender import RequestsSender

        options = self._options
        return Delivery(
            self.timers,
            self.wakeups,
            RequestsSender(
                options.send_timeout_s, options.guard, keep_responses=options.keep_responses
            ),
            DeliveryPolicy(
                lease_ms=options.lease_ms,
                retry_delays_s=options.retry_delays_s,
                signing_keys=self._signing_keys(),
            ),
            Effects(
                clock=options.clock,
                sleep=time.sleep,
                random=random.random,
                token=functools.partial(secrets.token_hex, 8),
                meter=options.meter,
            ),
        )

    @cached_property
    def due_index(self) -> DynamoDBDueIndex:
        """The index of outstanding timers."""
        from chalicelib.aws.dynamodb.due_index import DynamoDBDueIndex

        return DynamoDBDueIndex(self.clients.dynamodb, self.names.table)

    @cached_property
    def sweeper(self) -> Sweeper:
        """The use case of the function that sweeps."""
        # A sender that died may hold a timer for a whole lease. No wake-up helps before that.
        return self.sweeper_with(grace_ms=self._options.lease_ms)

    def sweeper_with(self, *, grace_ms: int) -> Sweeper:
        """Return a sweeper for which a timer counts as missed once it is ``grace_ms`` late."""
        return Sweeper(
            self.due_index,
            self.wakeups,
            self._options.clock,
            grace_ms=grace_ms,
            budget_ms=SWEEP_BUDGET_MS,
        )

    def _signing_keys(self) -> SigningKeys:
        """Return the source of the signing keys: the options, else the stage's SSM parameter."""
        keys = self._options.signing_keys
        if keys is not None:
            return lambda: keys
        from chalicelib.aws.secrets import SigningSecrets

        return SigningSecrets(
            lambda: self.clients.ssm, self.names.signing_secrets, self._options.clock
        )
