"""The secrets that sign webhooks on AWS, read from SSM Parameter Store and kept for minutes.

So a rotation needs no deployment, and a webhook costs no call. Powertools' ``parameters`` would
keep a value too, but by a clock of its own, not that there is none, and not beyond its time when
SSM is away; and it turns every failure into one text.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.signing import read_secrets
from chalicelib.service.ports import Clock

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

log = logging.getLogger(__name__)

KEPT_MS = 5 * 60_000
"""How long secrets hold that were read."""

ABSENT_MS = 30_000
"""How long it holds that there is no parameter: the first secret of a stage signs this soon."""

AGAIN_MS = 5_000
"""How long nothing is asked after a failure that leaves nothing to go by: a batch shares it."""

AGAIN_WITH_KEYS_MS = 60_000
"""How long nothing is asked after a failure when there are keys from before: who asks is late."""


class SigningSecrets:
    """The signing keys of a stage; empty where it has none. Safe to use from many threads.

    ``parameter`` holds secrets with blanks between them. The client is made when first needed.
    Who puts something there wants signatures, even if it cannot be used: from then on nothing is
    sent unsigned, should the parameter be removed too, until secrets were read.
    """

    def __init__(self, ssm: Callable[[], SSMClient], parameter: str, clock: Clock) -> None:
        self._ssm = ssm
        self._parameter = parameter
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: tuple[bytes, ...] | None = None
        self._spoilt = False
        self._asked_at = 0.0
        self._quiet_ms = 0

    def __call__(self) -> Sequence[bytes]:
        """Return the keys that sign now: while SSM is away, those that it named last.

        Raises ``Unavailable`` when there are none to go by: nothing is sent unsigned that might
        have to be signed.
        """
        # Whoever has keys does not wait for whoever asks for newer ones.
        if self._lock.acquire(blocking=self._keys is None):
            try:
                self._refresh()
            finally:
                self._lock.release()
        keys = self._keys
        if keys is None:
            raise Unavailable(f"The signing secrets in {self._parameter} cannot be had now.")
        return keys

    def _refresh(self) -> None:
        """Ask, if the last answer is too old; after a failure, what was known stays."""
        # A clock that went back must not make an answer hold for longer.
        if 0 <= self._clock() - self._asked_at < self._quiet_ms:
            return
        try:
            self._take(read_secrets(self._read()))
        except (BotoCoreError, ClientError) as error:
            level = logging.ERROR if self._keys is None else logging.WARNING
            self._miss(level, f"cannot be read ({_code(error)})")
        except ValueError as error:
            self._spoilt = True
            self._keys = self._keys or None
            self._miss(logging.ERROR, str(error))
        self._asked_at = self._clock()

    def _take(self, keys: tuple[bytes, ...]) -> None:
        if self._spoilt and not keys:
            self._miss(logging.ERROR, "is gone, and could not be used before")
            return
        if self._keys and not keys:
            log.warning("%s is gone: webhooks are no longer signed", self._parameter)
        self._keys = keys
        self._spoilt = False
        self._quiet_ms = KEPT_MS if keys else ABSENT_MS

    def _miss(self, level: int, reason: str) -> None:
        if self._keys is None:
            self._quiet_ms, instead = AGAIN_MS, "webhooks wait"
        else:
            self._quiet_ms = AGAIN_WITH_KEYS_MS if self._keys else ABSENT_MS
            instead = "what was read before stays in use"
        log.log(level, "%s: %s: %s", self._parameter, reason, instead)

    def _read(self) -> str:
        """Return what the parameter holds, nothing if there is none."""
        ssm = self._ssm()
        try:
            found = ssm.get_parameter(Name=self._parameter, WithDecryption=True)
        except ssm.exceptions.ParameterNotFound:
            return ""
        text = found["Parameter"]["Value"]
        if not text.strip():
            raise ValueError("has no signing secret")
        return text


def _code(error: BotoCoreError | ClientError) -> str:
    if isinstance(error, ClientError):
        return error.response["Error"]["Code"]
    return type(error).__name__
