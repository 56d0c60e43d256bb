"""What invokes the functions where no Lambda does: receives from the queue, and sweeps on a tick.

Batches are delivered and deleted as Lambda's event source does it: a batch that fails stays on
the queue, comes again, and in the end is a dead letter.
"""

from __future__ import annotations

import logging
import resource
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.domain.errors import StartupError, Unavailable

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

log = logging.getLogger(__name__)

BATCH = 10
"""The most messages that one receive returns."""

POLLERS = 4
BATCHES = 64
"""Batches in delivery at once: what beyond these receivers hold up waits on the queue."""

POLL_S = 2
"""How long an empty queue is listened to in one call: below the clients' read timeout."""

TICK_S = 5.0
PAUSE_S = 1.0
"""How long a poller rests when the queue could not be read."""

START_S = 10.0
"""How long an emulator may take to get ready that was started just before."""

OPEN_FILES = 4096


class Pump:
    """Keeps a queue empty, and sweeps. ``run`` blocks until it is told to stop."""

    def __init__(
        self,
        sqs: SQSClient,
        queue: str,
        *,
        prepare: Callable[[], None],
        deliver: Callable[[Sequence[str]], None],
        sweep: Callable[[], object],
    ) -> None:
        """``deliver`` takes the bodies of a batch; ``prepare`` makes what the emulator lacks."""
        self._sqs = sqs
        self._queue = queue
        self._prepare = prepare
        self._deliver = deliver
        self._sweep = sweep
        self._room = threading.Semaphore(BATCHES)
        self._url = ""

    def run(self, stopped: threading.Event) -> None:
        """Deliver and sweep until ``stopped``; what is in delivery then is finished.

        Raises ``StartupError`` when the emulator does not get ready.
        """
        self._start(stopped)
        with (
            ThreadPoolExecutor(BATCHES, thread_name_prefix="batch") as batches,
            ThreadPoolExecutor(POLLERS, thread_name_prefix="poll") as pollers,
        ):
            for _ in range(POLLERS):
                pollers.submit(self._poll, batches, stopped)
            while not stopped.wait(TICK_S):
                self._tick()

    def _start(self, stopped: threading.Event) -> None:
        _allow_files()
        deadline = time.monotonic() + START_S
        while not self._url:
            try:
                self._prepare()
                self._url = self._sqs.get_queue_url(QueueName=self._queue)["QueueUrl"]
            except (BotoCoreError, ClientError) as error:
                if stopped.wait(PAUSE_S) or time.monotonic() >= deadline:
                    raise StartupError(
                        f"the emulator of AWS cannot be used: {error} (make emulator starts one)"
                    ) from error

    def _tick(self) -> None:
        try:
            self._sweep()
        except Unavailable as error:
            log.warning("not swept: %s", error.detail)
            self._remake()

    def _remake(self) -> None:
        """Make again what an emulator has lost that was started anew."""
        try:
            self._prepare()
        except (BotoCoreError, ClientError) as error:
            log.warning("the emulator cannot be used: %s", error)

    def _poll(self, batches: ThreadPoolExecutor, stopped: threading.Event) -> None:
        while not stopped.is_set():
            self._room.acquire()
            messages = self._receive()
            if messages:
                batches.submit(self._handle, messages)
                continue
            self._room.release()
            if messages is None:
                stopped.wait(PAUSE_S)

    def _receive(self) -> Sequence[MessageTypeDef] | None:
        """Return what has come, None if the queue cannot be read now."""
        try:
            answer = self._sqs.receive_message(
                QueueUrl=self._url, MaxNumberOfMessages=BATCH, WaitTimeSeconds=POLL_S
            )
        except (BotoCoreError, ClientError) as error:
            log.warning("the queue cannot be read: %s", error)
            return None
        return answer.get("Messages", [])

    def _handle(self, messages: Sequence[MessageTypeDef]) -> None:
        try:
            self._deliver([message["Body"] for message in messages])
            self._delete(messages)
        except Unavailable as error:
            log.warning("a batch is left on the queue: %s", error.detail)
        except Exception:
            log.exception("a batch is left on the queue")
        finally:
            self._room.release()

    def _delete(self, messages: Sequence[MessageTypeDef]) -> None:
        self._sqs.delete_message_batch(
            QueueUrl=self._url,
            Entries=[
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                for number, message in enumerate(messages)
            ],
        )


def _allow_files() -> None:
    """Allow a socket for every message in delivery: some systems begin with 256 files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES:
        wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
