"""The secrets that sign a stage's webhooks: made, rotated and removed in SSM Parameter Store."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.domain.signing import read_secret, write_secret
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
        What cannot be used is overwritten, and never removed first: who delivers and asks between
        the two would send unsigned.
        Raises ``DeployError`` when there are two already: dropping one would break receivers.
        """
        text = self._text()
        before = self._usable(text)
        if len(before) > 1:
            raise DeployError(
                f"{self.name} is being rotated: it has {len(before)} secrets. "
                "Drop the old first, with FINISH=1."
            )
        secret = new_secret()
        show(secret)
        self._put([secret, *before], overwrite=text is not None)
        if before:
            self.say(f"{self.name}: the new secret and the old one sign within five minutes")
        else:
            self.say(f"{self.name}: webhooks are signed with it within five minutes")

    def finish(self) -> None:
        """Drop all secrets but the newest. Raises ``DeployError`` when there is none."""
        held = self._held(self._text())
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

    def _usable(self, text: str | None) -> list[str]:
        """Return the secrets in ``text``, none if it holds something else, which is said."""
        try:
            return _secrets(text)
        except ValueError as error:
            self.say(
                f"{self.name} cannot be used: {error}. The new secret takes its place; "
                "aws ssm get-parameter-history shows what was there."
            )
            return []

    def _held(self, text: str | None) -> list[str]:
        """Return the secrets in ``text``. Raises ``DeployError`` when it holds something else."""
        try:
            return _secrets(text)
        except ValueError as error:
            raise DeployError(
                f"{self.name} cannot be used: {error}. "
                "Without FINISH=1 a new secret takes its place."
            ) from None

    def _text(self) -> str | None:
        """Return what the parameter holds, None if there is none."""
        try:
            found = self.ssm.get_parameter(Name=self.name, WithDecryption=True)
        except self.ssm.exceptions.ParameterNotFound:
            return None
        return found["Parameter"]["Value"]

    def _put(self, words: Sequence[str], *, overwrite: bool) -> None:
        text = " ".join(words)
        try:
            self.ssm.put_parameter(
                Name=self.name,
                Value=text,
                Type="SecureString",
                Tier="Standard",
                Overwrite=overwrite,
            )
        except (BotoCoreError, ClientError) as error:
            # A first try whose answer was lost may have done it.
            if self._text() != text:
                raise DeployError(f"{self.name} is left as it was: {_reason(error)}.") from error


def _secrets(text: str | None) -> list[str]:
    """Return the secrets in ``text``, as they stand there. Raises ``ValueError``."""
    if text is None:
        return []
    words = text.split()
    for word in words:
        read_secret(word)
    if not words:
        raise ValueError("it has no signing secret")
    return words


def _reason(error: BotoCoreError | ClientError) -> str:
    """Return what went wrong, and nothing that was sent."""
    if isinstance(error, ClientError):
        return error.response["Error"]["Code"]
    return type(error).__name__
