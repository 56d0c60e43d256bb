"""The signing secrets of a stage, read from SSM Parameter Store and cached for minutes.

A rotation needs no deployment, and most webhooks cost no call. Powertools' ``parameters`` also
caches, but not that a parameter is missing, and not beyond its time while SSM is down. It also
reports every failure with the same text.
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

SECRETS_TTL_MS = 5 * 60_000
"""How long secrets are cached."""

ABSENT_TTL_MS = 30_000
"""How long a missing parameter is cached: the first secret of a stage signs within this time."""

FAILURE_TTL_MS = 5_000
"""How long a failure is cached while there are no secrets: a batch of webhooks shares it."""

STALE_TTL_MS = 60_000
"""How long old secrets serve after a failure before SSM is asked again, which delays webhooks."""


class SigningSecrets:
    """The signing keys of a stage, none if it has no secrets. Thread-safe.

    ``parameter`` holds secrets separated by blanks. The client is made when first needed. A
    malformed parameter shows that signatures are wanted. From then on nothing is sent unsigned
    until secrets were read, even if the parameter is removed.
    """

    def __init__(self, ssm: Callable[[], SSMClient], parameter: str, clock: Clock) -> None:
        self._ssm = ssm
        self._parameter = parameter
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: tuple[bytes, ...] | None = None
        self._malformed = False
        self._asked_at = 0.0
        self._ttl_ms = 0

    def __call__(self) -> Sequence[bytes]:
        """Return the keys that sign now: while SSM is down, the last ones that were read.

        Raises ``Unavailable`` when it is not known whether there are any: a webhook that may need
        a signature is not sent without one.
        """
        # One thread asks SSM. The others wait for it only if there are no keys yet.
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
        """Ask SSM if the cache is too old. After a failure the cached keys stay."""
        # A clock that was put back must not make the cache live longer.
        if 0 <= self._clock() - self._asked_at < self._ttl_ms:
            return
        try:
            self._take(read_secrets(self._read()))
        except (BotoCoreError, ClientError) as error:
            level = logging.ERROR if self._keys is None else logging.WARNING
            self._miss(level, f"cannot be read ({_code(error)})")
        except ValueError as error:
            self._malformed = True
            self._keys = self._keys or None
            self._miss(logging.ERROR, str(error))
        self._asked_at = self._clock()

    def _take(self, keys: tuple[bytes, ...]) -> None:
        if self._malformed and not keys:
            self._miss(logging.ERROR, "is gone, and could not be used before")
            return
        if self._keys and not keys:
            log.warning("%s is gone: webhooks are no longer signed", self._parameter)
        self._keys = keys
        self._malformed = False
        self._ttl_ms = SECRETS_TTL_MS if keys else ABSENT_TTL_MS

    def _miss(self, level: int, reason: str) -> None:
        if self._keys is None:
            self._ttl_ms, instead = FAILURE_TTL_MS, "webhooks wait"
        else:
            self._ttl_ms = STALE_TTL_MS if self._keys else ABSENT_TTL_MS
            instead = "what was read before stays in use"
        log.log(level, "%s: %s: %s", self._parameter, reason, instead)

    def _read(self) -> str:
        """Return the text of the parameter, an empty one if it is missing."""
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
