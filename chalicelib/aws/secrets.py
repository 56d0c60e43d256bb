"""The signing secrets of a stage, read from SSM Parameter Store and cached for minutes.

A rotation needs no deployment, and most webhooks cost no call to SSM. The module ``parameters`` of
Powertools has a cache too. But it does not cache that a parameter is missing, it does not serve old
values while SSM is down, and it reports every failure with the same text.
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
"""How long a missing parameter is cached. The first secret of a stage is used after this time."""

FAILURE_TTL_MS = 5_000
"""How long a failure is cached while no keys are known, so that a batch of webhooks shares it."""

STALE_TTL_MS = 60_000
"""How long old keys are used after a failure. Asking SSM more often would delay more webhooks."""


class SigningSecrets:
    """The signing keys of a stage. Thread-safe.

    ``parameter`` has the secrets, separated by blanks. If it is missing, webhooks are not signed.
    ``ssm`` makes the client when it is first needed.
    """

    def __init__(self, ssm: Callable[[], SSMClient], parameter: str, clock: Clock) -> None:
        self._ssm = ssm
        self._parameter = parameter
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: tuple[bytes, ...] | None = None
        """None while it is not known whether webhooks are signed; empty if they are not."""
        self._malformed = False
        """Whether the parameter was malformed when it was last read."""
        self._asked_at = 0.0
        self._ttl_ms = 0

    def __call__(self) -> Sequence[bytes]:
        """Return the keys that sign now. While SSM is down, these are the last ones that were read.

        Raises ``Unavailable`` when it is not known whether there are any keys: a webhook that may
        need a signature is not sent without one.
        """
        # One thread asks SSM. The others use the old keys meanwhile, and wait if there are none.
        if self._lock.acquire(blocking=self._keys is None):
            try:
                self._refresh()
            finally:
                self._lock.release()
        keys = self._keys
        if keys is None:
            raise Unavailable(f"The signing secrets in {self._parameter} cannot be read now.")
        return keys

    def _refresh(self) -> None:
        """Ask SSM if the cache is too old. After a failure the cached keys stay."""
        # A negative age means that the clock was put back. Then the cache counts as too old, or it
        # would live until the clock has caught up.
        if 0 <= self._clock() - self._asked_at < self._ttl_ms:
            return
        try:
            self._accept(read_secrets(self._read()))
        except (BotoCoreError, ClientError) as error:
            level = logging.ERROR if self._keys is None else logging.WARNING
            self._keep_cached(level, f"cannot be read ({_code(error)})")
        except ValueError as error:
            # Somebody has tried to store secrets, so webhooks must not go out unsigned any more:
            # "no keys" becomes "not known". Keys that were read before stay in use.
            self._malformed = True
            self._keys = self._keys or None
            self._keep_cached(logging.ERROR, str(error))
        self._asked_at = self._clock()

    def _accept(self, keys: tuple[bytes, ...]) -> None:
        """Use ``keys`` from now on. There are none if the parameter is missing."""
        # A malformed parameter that was then removed does not switch signatures off. Somebody may
        # be about to replace it.
        if self._malformed and not keys:
            self._keep_cached(logging.ERROR, "is gone, and could not be used before")
            return
        if self._keys and not keys:
            log.warning("%s is gone: webhooks are no longer signed", self._parameter)
        self._keys = keys
        self._malformed = False
        self._ttl_ms = SECRETS_TTL_MS if keys else ABSENT_TTL_MS

    def _keep_cached(self, level: int, reason: str) -> None:
        """Log why no keys were read, and set the time after which SSM is asked again."""
        if self._keys is None:
            self._ttl_ms, consequence = FAILURE_TTL_MS, "webhooks wait"
        else:
            self._ttl_ms = STALE_TTL_MS if self._keys else ABSENT_TTL_MS
            consequence = "what was read before stays in use"
        log.log(level, "%s: %s: %s", self._parameter, reason, consequence)

    def _read(self) -> str:
        """Return the text of the parameter. Return an empty text if there is no parameter."""
        ssm = self._ssm()
        try:
            found = ssm.get_parameter(Name=self._parameter, WithDecryption=True)
        except ssm.exceptions.ParameterNotFound:
            return ""
        text = found["Parameter"]["Value"]
        # A blank parameter is a mistake, unlike a missing one.
        if not text.strip():
            raise ValueError("has no signing secret")
        return text


def _code(error: BotoCoreError | ClientError) -> str:
    """Return AWS's code of the error, or the class of an error without one."""
    if isinstance(error, ClientError):
        return error.response["Error"]["Code"]
    return type(error).__name__
