"""The pump takes the place of Lambda beside an emulator: it receives messages, and sweeps.

It treats a batch as Lambda's event source does. A batch that was delivered is deleted. A batch that
fails stays on the queue, is received again, and becomes a dead letter in the end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.domain.errors import StartupError, Unavailable
from chalicelib.embedded import open_files

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

log = logging.getLogger(__name__)

MAX_MESSAGES = 10
"""The most messages that one receive returns (SQS limit)."""

MAX_BATCHES = 64
"""Batches in delivery at once. When receivers are slow, further messages wait on the queue."""

MAX_CONNECTIONS = 4096
"""Enough for one socket for each message in delivery. Some systems allow 256 files by default."""


class Pump:
    """Receives and delivers the messages of one queue, and sweeps at regular intervals.

    ``deliver`` takes the message bodies of a batch. ``prepare`` makes the resources that are
    missing in the emulator. ``sweep`` wakes timers whose wake-up was lost.
    """

    def __init__(
        self,
        sqs: SQSClient,
        queue: str,
        *,
        prepare: Callable[[], None],
        deliver: Callable[[Sequence[str]], None],
        sweep: Callable[[], object],
        catch_up: Callable[[], object] | None = None,
        pollers: int = 4,
        poll_s: int = 2,
        tick_s: float = 5.0,
        pause_s: float = 1.0,
        start_s: float = 10.0,
    ) -> None:
        """``pollers`` is the number of threads that receive. Durations are in seconds.

        ``poll_s`` is how long one receive waits for messages. It must be below the read timeout of
        ``sqs``, or the client would give up first. ``tick_s`` is the time between two sweeps, and
        ``pause_s`` the time before a failed call is repeated. ``catch_up`` sweeps at the start, and
        again after ``pause_s``: it wakes timers that were missed while nothing ran. ``start_s`` is
        how long to wait for an emulator that was started just before.
        """
        self._sqs = sqs
        self._queue = queue
        self._prepare = prepare
        self._deliver = deliver
        self._sweep = sweep
        self._catch_up = catch_up or sweep
        self._pollers = pollers
        self._poll_s = poll_s
        self._tick_s = tick_s
        self._pause_s = pause_s
        self._start_s = start_s
        self._free_slots = threading.Semaphore(MAX_BATCHES)
        self._url = ""

    def run(self, stopped: threading.Event) -> None:
        """Deliver and sweep until ``stopped``, then finish the batches in delivery.

        Raises ``StartupError`` if the emulator does not get ready.
        """
        self._start(stopped)
        with (
            ThreadPoolExecutor(MAX_BATCHES, thread_name_prefix="batch") as batches,
            ThreadPoolExecutor(self._pollers, thread_name_prefix="poll") as pollers,
        ):
            for _ in range(self._pollers):
                pollers.submit(self._poll, batches, stopped)
            self._tick(self._catch_up)
            # Once more: while old messages waited to be received, the first one woke no timer that
            # may have one among them.
            if not stopped.wait(self._pause_s):
                self._tick(self._catch_up)
            while not stopped.wait(self._tick_s):
                self._tick(self._sweep)

    def _start(self, stopped: threading.Event) -> None:
        open_files.raise_limit(MAX_CONNECTIONS)
        deadline = time.monotonic() + self._start_s
        while not self._url:
            try:
                self._prepare()
                self._url = self._sqs.get_queue_url(QueueName=self._queue)["QueueUrl"]
            except (BotoCoreError, ClientError) as error:
                if stopped.wait(self._pause_s) or time.monotonic() >= deadline:
                    raise StartupError(
                        f"the emulator of AWS cannot be used: {error} (make emulator starts one)"
                    ) from error

    def _tick(self, sweep: Callable[[], object]) -> None:
        try:
            sweep()
        except Unavailable as error:
            log.warning("not swept: %s", error.detail)
            # An emulator that was restarted may have lost its resources.
            self._prepare_again()

    def _prepare_again(self) -> None:
        try:
            self._prepare()
        except (BotoCoreError, ClientError) as error:
            log.warning("the emulator cannot be used: %s", error)

    def _poll(self, batches: ThreadPoolExecutor, stopped: threading.Event) -> None:
        while not stopped.is_set():
            # A slot is taken before a message is received: a received message that waited here
            # would use up its visibility timeout.
            self._free_slots.acquire()
            messages = self._receive()
            if messages:
                batches.submit(self._handle, messages)
                continue
            self._free_slots.release()
            if messages is None:
                stopped.wait(self._pause_s)

    def _receive(self) -> Sequence[MessageTypeDef] | None:
        """Return the messages received, None if the queue cannot be read now."""
        try:
            received = self._sqs.receive_message(
                QueueUrl=self._url, MaxNumberOfMessages=MAX_MESSAGES, WaitTimeSeconds=self._poll_s
            )
        except (BotoCoreError, ClientError) as error:
            log.warning("the queue cannot be read: %s", error)
            return None
        return received.get("Messages", [])

    def _handle(self, messages: Sequence[MessageTypeDef]) -> None:
        try:
            self._deliver([message["Body"] for message in messages])
            self._delete(messages)
        except Unavailable as error:
            log.warning("a batch is left on the queue: %s", error.detail)
        except Exception:  # the pump must outlive a fault in one batch
            log.exception("a batch is left on the queue")
        finally:
            self._free_slots.release()

    def _delete(self, messages: Sequence[MessageTypeDef]) -> None:
        self._sqs.delete_message_batch(
            QueueUrl=self._url,
            Entries=[
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                for number, message in enumerate(messages)
            ],
        )
