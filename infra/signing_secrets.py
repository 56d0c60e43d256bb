"""The signing secrets of a stage in SSM Parameter Store: made, rotated and removed."""

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
"""The length of a new signing key. Standard Webhooks asks for 24 to 64 bytes."""


def new_secret() -> str:
    """Return a new random secret, written as Standard Webhooks does (``whsec_…``)."""
    return write_secret(secrets.token_bytes(KEY_BYTES))


@dataclass(frozen=True, slots=True)
class SigningParameter:
    """The SSM parameter of one stage.

    It holds one secret, and during a rotation the new one and then the old one.
    """

    ssm: SSMClient
    name: str
    say: Say

    def rotate(self, show: Say) -> None:
        """Add a new secret before the present one, so that both sign.

        ``show`` receives the new secret before it is stored: otherwise a crash in between would
        leave a secret that nobody knows. A parameter that does not contain secrets is overwritten.
        Raises ``DeployError`` if there are two secrets already, because some receivers may still
        have only the old one.
        """
        text = self._text()
        present = self._usable(text)
        if len(present) > 1:
            raise DeployError(
                f"{self.name} is being rotated: it has {len(present)} secrets. "
                "Drop the old first, with FINISH=1."
            )
        secret = new_secret()
        show(secret)
        # Never removed first: without the parameter, a delivery sends its webhook unsigned.
        self._put([secret, *present], overwrite=text is not None)
        if present:
            self.say(f"{self.name}: the new secret and the old one sign within five minutes")
        else:
            self.say(f"{self.name}: webhooks are signed with the new secret within five minutes")

    def finish(self) -> None:
        """Drop all secrets but the newest. Raises ``DeployError`` if there is none."""
        present = self._required(self._text())
        if not present:
            raise DeployError(f"There is no secret in {self.name}, so no rotation to finish.")
        if len(present) == 1:
            self.say(f"{self.name}: it has one secret, nothing to drop")
            return
        self._put(present[:1], overwrite=True)
        self.say(f"{self.name}: only the new secret signs, within five minutes")

    def remove(self) -> None:
        """Remove the parameter, if there is one."""
        try:
            self.ssm.delete_parameter(Name=self.name)
        except self.ssm.exceptions.ParameterNotFound:
            return
        self.say(f"{self.name}: removed")

    def _usable(self, text: str | None) -> list[str]:
        """Return the secrets in ``text``. If it holds something else, say so and return none."""
        try:
            return _secrets(text)
        except ValueError as error:
            self.say(
                f"{self.name} cannot be used: {error}. The new secret takes its place; "
                "aws ssm get-parameter-history shows what was there."
            )
            return []

    def _required(self, text: str | None) -> list[str]:
        """Return the secrets in ``text``. Raises ``DeployError`` if it holds something else."""
        try:
            return _secrets(text)
        except ValueError as error:
            raise DeployError(
                f"{self.name} cannot be used: {error}. "
                "Without FINISH=1 a new secret takes its place."
            ) from None

    def _text(self) -> str | None:
        """Return the parameter's value, None if it does not exist."""
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
            # boto3 repeats a failed call. The first one may have stored the text although its
            # response was lost, and the repeated one then fails.
            if self._text() != text:
                raise DeployError(f"{self.name} is left as it was: {_reason(error)}.") from error


def _secrets(text: str | None) -> list[str]:
    """Return the secrets in ``text``, as written. Raises ``ValueError`` for any other text."""
    if text is None:
        return []
    words = text.split()
    for word in words:
        read_secret(word)
    if not words:
        raise ValueError("it has no signing secret")
    return words


def _reason(error: BotoCoreError | ClientError) -> str:
    """Return the kind of error, without its message: that could repeat the secret."""
    if isinstance(error, ClientError):
        return error.response["Error"]["Code"]
    return type(error).__name__
