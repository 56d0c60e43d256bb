"""`make secret` makes, rotates and drops signing secrets, and shows them only once."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from chalicelib.aws.secrets import FAILURE_TTL_MS, SigningSecrets
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.signing import read_secret, read_secrets, write_secret
from infra import __main__ as command
from infra.errors import DeployError
from infra.package import ROOT
from infra.signing_secrets import KEY_BYTES, SigningParameter
from tests.support.clock import ManualClock

NAME = "/timers-dev/signing-secrets"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command and returns its exit status and both outputs."""

    def running(*arguments: str) -> tuple[int, str, str]:
        status = command.main(["secret", *arguments])
        return status, *capsys.readouterr()

    return running


@pytest.fixture
def parameter(aws: None) -> SigningParameter:
    return SigningParameter(boto3.client("ssm"), NAME, say=lambda _line: None)


def held() -> str:
    found = boto3.client("ssm").get_parameter(Name=NAME, WithDecryption=True)["Parameter"]
    assert found["Type"] == "SecureString"
    return found["Value"]


def fail_puts(parameter: SigningParameter, failure: Exception, *, after: bool) -> None:
    """Make every PutParameter fail, before or after it has stored the value."""
    event = "after-call" if after else "before-call"

    def refuse(**_: Any) -> None:
        raise failure

    parameter.ssm.meta.events.register(f"{event}.ssm.PutParameter", refuse)


def test_without_a_stage_a_secret_for_the_offline_server_is_printed_and_nothing_else(
    run: Run,
) -> None:
    status, first, hint = run()
    _, second, _ = run()
    assert status == 0
    assert len(read_secret(first.removesuffix("\n"))) == KEY_BYTES
    assert first != second
    assert "TIMERS_SIGNING_SECRETS_FILE" in hint
    assert first.strip() not in hint


def test_the_first_secret_of_a_stage_is_stored_encrypted_and_printed_once(
    aws: None, run: Run
) -> None:
    status, secret, notes = run("dev")
    assert status == 0
    assert held() == secret.strip()
    assert secret.strip() not in notes
    assert "make secret STAGE=dev FINISH=1" in notes


def test_a_rotation_puts_the_new_secret_first_and_keeps_the_old_until_it_is_finished(
    aws: None, run: Run
) -> None:
    _, old, _ = run("dev")
    _, new, _ = run("dev")
    assert held().split() == [new.strip(), old.strip()]

    assert run("dev", "--finish")[:2] == (0, "")
    assert held() == new.strip()
    status, output, notes = run("dev", "--finish")
    assert (status, output) == (0, "")
    assert "nothing to drop" in notes


def test_deliveries_sign_with_the_secrets_that_the_command_stores(aws: None, run: Run) -> None:
    run("dev")
    run("dev")
    keys = SigningSecrets(lambda: boto3.client("ssm"), NAME, ManualClock())
    assert keys() == read_secrets(held())
    assert len(keys()) == 2


def test_a_third_secret_is_refused_because_it_would_break_receivers(aws: None, run: Run) -> None:
    run("dev")
    run("dev")
    before = held()
    status, output, reason = run("dev")
    assert (status, output) == (1, "")
    assert "FINISH=1" in reason
    assert held() == before


def test_there_is_no_rotation_to_finish_without_a_secret(aws: None, run: Run) -> None:
    status, _, reason = run("dev", "--finish")
    assert status == 1
    assert "no rotation to finish" in reason


def test_stages_have_secrets_of_their_own(aws: None, run: Run) -> None:
    run("dev")
    _, production, _ = run("prod")
    assert production.strip() != held()


def test_an_unknown_stage_is_refused_before_anything_is_made(aws: None, run: Run) -> None:
    status, output, reason = run("test")
    assert (status, output) == (1, "")
    assert "STAGE is one of dev, prod" in reason


SPOILT = [write_secret(b"too short"), f"{write_secret(b'o' * 32)} whsec_!", " "]


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_spoilt_parameter_is_overwritten_but_never_removed_and_the_output_says_so(
    aws: None, run: Run, parameter: SigningParameter, spoilt: str
) -> None:
    parameter.ssm.put_parameter(Name=NAME, Value=spoilt, Type="SecureString")
    status, secret, notes = run("dev")
    assert status == 0
    assert held() == secret.strip()
    history = parameter.ssm.get_parameter_history(Name=NAME, WithDecryption=True)["Parameters"]
    assert [version["Value"] for version in history] == [spoilt, secret.strip()]
    assert f"{NAME} cannot be used" in notes
    assert "takes its place" in notes


@pytest.mark.parametrize("arguments", [[], ["--finish"]])
def test_the_output_neither_shows_a_spoilt_parameter_nor_advises_its_removal(
    aws: None, run: Run, parameter: SigningParameter, arguments: list[str]
) -> None:
    spoilt = SPOILT[0]
    parameter.ssm.put_parameter(Name=NAME, Value=spoilt, Type="SecureString")
    status, output, notes = run("dev", *arguments)
    assert status == len(arguments)
    assert spoilt.removeprefix("whsec_") not in output + notes
    assert NAME in notes
    for word in ("delete", "remove"):
        assert word not in notes.lower()


def test_between_a_spoilt_parameter_and_a_new_secret_nothing_is_sent_unsigned(
    aws: None, run: Run, parameter: SigningParameter
) -> None:
    parameter.ssm.put_parameter(Name=NAME, Value=SPOILT[0], Type="SecureString")
    clock = ManualClock()
    keys = SigningSecrets(lambda: boto3.client("ssm"), NAME, clock)
    with pytest.raises(Unavailable):
        keys()
    run("dev")
    clock.advance(FAILURE_TTL_MS)
    assert keys() == read_secrets(held())


def test_a_lost_response_after_the_secret_was_stored_is_a_success(
    parameter: SigningParameter,
) -> None:
    shown: list[str] = []
    fail_puts(parameter, ReadTimeoutError(endpoint_url="https://ssm.example"), after=True)
    parameter.rotate(shown.append)
    assert [held()] == shown


def test_the_output_says_that_a_secret_which_was_not_stored_is_not_in_use(
    parameter: SigningParameter,
) -> None:
    shown: list[str] = []
    denied = ClientError({"Error": {"Code": "AccessDeniedException"}}, "PutParameter")
    fail_puts(parameter, denied, after=False)
    with pytest.raises(DeployError, match=f"{NAME} is left as it was: AccessDeniedException"):
        parameter.rotate(shown.append)
    assert len(shown) == 1


def test_a_secret_is_shown_before_it_is_stored(parameter: SigningParameter) -> None:
    class Killed(BaseException):
        """The process ends here."""

    def show(_secret: str) -> None:
        raise Killed

    with pytest.raises(Killed):
        parameter.rotate(show)
    assert parameter.ssm.describe_parameters()["Parameters"] == []


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([], "infra secret"),
        (["STAGE=dev"], "infra secret dev"),
        (["STAGE=prod", "FINISH=1"], "infra secret prod --finish"),
        (["FINISH=1"], "infra secret --finish"),
    ],
)
def test_make_names_a_stage_only_if_the_user_names_one(arguments: list[str], wanted: str) -> None:
    outer = {"STAGE", "FINISH", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    shown = subprocess.run(
        ["make", "--dry-run", "secret", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert " ".join(shown.stdout.splitlines()[-1].split()).endswith(wanted)
