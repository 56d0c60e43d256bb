"""The secrets that sign a stage's webhooks: made, rotated and removed in SSM Parameter Store."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.signing import read_secret, write_secret
from infra.errors import DeployError
from infra.stacks import Say

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

KEY_BYTES = 32


def new_secret() -> str:
    """Return a secret that nobody has seen."""
    return write_secret(secrets.token_bytes(KEY_BYTES))


@dataclass(frozen=True, slots=True)
class SigningParameter:
    """The parameter of one stage. It holds one secret, and during a rotation the old one too."""

    ssm: SSMClient
    name: str
    say: Say

    def rotate(self, show: Say) -> None:
        """Put a new secret before the one there is: from now on both sign.

        ``show`` gets it before it is stored, so that no crash leaves a secret that nobody knows.
        Raises ``DeployError`` when there are two already: dropping one would break receivers.
        """
        before = self._held()
        if len(before) > 1:
            raise DeployError(
                f"{self.name} is being rotated: it has {len(before)} secrets. "
                "Drop the old first, with FINISH=1."
            )
        secret = new_secret()
        show(secret)
        self._put([secret, *before], overwrite=bool(before))
        if before:
            self.say(f"{self.name}: the new secret and the old one sign within five minutes")
        else:
            self.say(f"{self.name}: webhooks are signed within five minutes")

    def finish(self) -> None:
        """Drop all secrets but the newest. Raises ``DeployError`` when there is none."""
        held = self._held()
        if not held:
            raise DeployError(f"There is no secret in {self.name}, so no rotation to finish.")
        if len(held) == 1:
            self.say(f"{self.name}: has one secret, nothing to drop")
            return
        self._put(held[:1], overwrite=True)
        self.say(f"{self.name}: only the new secret signs, within five minutes")

    def remove(self) -> None:
        """Remove the parameter, if there is one."""
        try:
            self.ssm.delete_parameter(Name=self.name)
        except self.ssm.exceptions.ParameterNotFound:
            return
        self.say(f"{self.name}: removed")

    def _held(self) -> list[str]:
        """Return the secrets there are. Raises ``DeployError`` when they are none."""
        try:
            found = self.ssm.get_parameter(Name=self.name, WithDecryption=True)
        except self.ssm.exceptions.ParameterNotFound:
            return []
        words = found["Parameter"]["Value"].split()
        try:
            for word in words:
                read_secret(word)
        except ValueError as error:
            raise DeployError(f"{self.name} cannot be used, delete it first: {error}.") from None
        return words

    def _put(self, words: Sequence[str], *, overwrite: bool) -> None:
        try:
            self.ssm.put_parameter(
                Name=self.name,
                Value=" ".join(words),
                Type="SecureString",
                Tier="Standard",
                Overwrite=overwrite,
            )
        except (BotoCoreError, ClientError) as error:
            # A first try whose answer was lost may have done it.
            if self._held() != list(words):
                raise DeployError(f"{self.name} is left as it was: {_reason(error)}.") from error


def _reason(error: BotoCoreError | ClientError) -> str:
    """Return what went wrong, and nothing that was sent."""
    if isinstance(error, ClientError):
        return error.response["Error"]["Code"]
    return type(error).__name__
