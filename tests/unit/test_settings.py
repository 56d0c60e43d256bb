"""Settings from the environment: defaults, limits and refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from chalicelib.domain.errors import InvalidSettings
from chalicelib.domain.retry import DEFAULT_DELAYS_S
from chalicelib.domain.signing import write_secret
from chalicelib.settings import chalice_command, is_loopback, load

IN_LAMBDA = {"AWS_LAMBDA_FUNCTION_NAME": "timers-dev"}
CHALICE = {"AWS_CHALICE_CLI_MODE": "true"}
OLD, NEW = write_secret(b"o" * 32), write_secret(b"n" * 32)


def test_nothing_has_to_be_set() -> None:
    settings = load({})
    assert settings.engine == "embedded"
    assert settings.stage == "dev"
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.allow_purge
    assert settings.retry_delays_s == DEFAULT_DELAYS_S


def test_an_empty_variable_counts_as_not_set() -> None:
    names = ["TIMERS_ENGINE", "TIMERS_STAGE", "PORT", "DATA_DIR", "TIMERS_RETRY_DELAYS"]
    assert load(dict.fromkeys(names, "")) == load({})


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load({}).port = 1  # type: ignore[misc]


def test_the_engine_is_aws_in_a_lambda_unless_it_is_set() -> None:
    assert load(IN_LAMBDA).engine == "aws"
    assert load(IN_LAMBDA | {"TIMERS_ENGINE": "embedded"}).engine == "embedded"
    assert load({"TIMERS_ENGINE": "aws"}).engine == "aws"


def test_the_default_data_folder_is_the_users_and_outside_the_checkout() -> None:
    folder = load({}).data_dir
    assert folder.is_absolute()
    assert folder.is_relative_to(Path.home())
    assert not folder.is_relative_to(Path(__file__).parents[2])


def test_a_data_folder_may_begin_at_home() -> None:
    assert load({"DATA_DIR": "~/timers"}).data_dir == Path.home() / "timers"


def test_a_relative_data_folder_is_made_absolute() -> None:
    assert load({"DATA_DIR": "timers"}).data_dir == Path.cwd() / "timers"


def test_a_data_folder_in_the_home_of_an_unknown_user_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="DATA_DIR=~no-such-user/timers"):
        load({"DATA_DIR": "~no-such-user/timers"})


@pytest.mark.parametrize(
    ("environment", "allowed"),
    [
        ({"TIMERS_STAGE": "dev"}, True),
        ({"TIMERS_STAGE": "prod"}, False),
        ({"TIMERS_STAGE": "prod", "TIMERS_ALLOW_PURGE": "on"}, True),
        ({"TIMERS_STAGE": "dev", "TIMERS_ALLOW_PURGE": "off"}, False),
    ],
)
def test_purging_is_off_in_production_unless_it_is_allowed(
    environment: dict[str, str], *, allowed: bool
) -> None:
    assert load(environment).allow_purge is allowed


def test_lists_are_separated_by_commas() -> None:
    settings = load({"TIMERS_ALLOWED_HOSTS": "Box.local, ,other", "TIMERS_RETRY_DELAYS": "1, 2.5"})
    assert settings.allowed_hosts == {"box.local", "other"}
    assert settings.retry_delays_s == (1.0, 2.5)


@pytest.mark.parametrize("timeout", ["0.1", "10", "60"])
def test_a_lease_outlasts_every_call(timeout: str) -> None:
    settings = load({"TIMERS_SEND_TIMEOUT": timeout})
    assert settings.lease_ms > settings.send_timeout_s * 1000 + 5_000


@pytest.mark.parametrize("timeout", ["10.1", "25", "60"])
def test_a_send_timeout_too_long_for_a_lambda_is_refused_there_and_when_building_one(
    timeout: str,
) -> None:
    wanted = {"TIMERS_SEND_TIMEOUT": timeout}
    refusal = rf"^TIMERS_SEND_TIMEOUT={timeout}: must be at most 10 in a Lambda: .* 28 s for two"
    with pytest.raises(InvalidSettings, match=refusal):
        load(wanted | IN_LAMBDA)
    with pytest.raises(InvalidSettings, match=refusal):
        load(wanted | CHALICE, ["chalice", "deploy"])
    assert load(wanted | CHALICE, ["chalice", "local"]).send_timeout_s == float(timeout)
    assert load(wanted | {"TIMERS_ENGINE": "aws"}).send_timeout_s == float(timeout)
    assert load({"TIMERS_SEND_TIMEOUT": "10"} | IN_LAMBDA).send_timeout_s == 10


@pytest.mark.parametrize(
    ("variables", "arguments", "refusal"),
    [
        ({"TIMERS_AUTH": "keys"}, [], "a caller with a key could move the clock of every tenant"),
        ({"TIMERS_ENGINE": "aws"}, [], "only the engine embedded has a test clock"),
        (IN_LAMBDA, [], "a Lambda has no test clock"),
        (IN_LAMBDA | {"TIMERS_AUTH": "none"}, [], "a Lambda has no test clock"),
        (CHALICE, ["chalice", "deploy"], "a Lambda has no test clock"),
    ],
)
def test_a_test_clock_is_for_one_machine_without_keys(
    variables: dict[str, str], arguments: list[str], refusal: str
) -> None:
    with pytest.raises(InvalidSettings, match=f"^TIMERS_CLOCK=test: {refusal}"):
        load({"TIMERS_CLOCK": "test"} | variables, arguments)
    assert not load({"TIMERS_CLOCK": "real"} | variables, arguments).test_clock
    assert load({"TIMERS_CLOCK": "test"} | CHALICE, ["chalice", "local"]).test_clock


def test_a_test_clock_has_a_folder_of_its_own_unless_one_is_named() -> None:
    test = {"TIMERS_CLOCK": "test"}
    assert load(test).data_dir != load({}).data_dir
    assert load(test | {"DATA_DIR": "/timers"}).data_dir == Path("/timers")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TIMERS_ENGINE", "azure"),
        ("TIMERS_AUTH", "key"),
        ("TIMERS_AUTH", "off"),
        ("TIMERS_ALLOW_PURGE", "yes"),
        ("TIMERS_ALLOW_PURGE", "ON"),
        ("PORT", "abc"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "80.5"),
        ("PORT", "-1"),
        ("TIMERS_WORKERS", "0"),
        ("TIMERS_WORKERS", "65"),
        ("TIMERS_SEND_TIMEOUT", "0"),
        ("TIMERS_SEND_TIMEOUT", "-1"),
        ("TIMERS_SEND_TIMEOUT", "nan"),
        ("TIMERS_SEND_TIMEOUT", "inf"),
        ("TIMERS_SEND_TIMEOUT", "ten"),
        ("TIMERS_RETENTION_DAYS", "-1"),
        ("TIMERS_RETENTION_DAYS", "inf"),
        ("TIMERS_MAX_IN_FLIGHT", "0"),
        ("TIMERS_RETRY_DELAYS", "soon"),
    ],
)
def test_an_impossible_value_is_refused_by_name_and_value(name: str, value: str) -> None:
    with pytest.raises(InvalidSettings, match=rf"^{name}={value}: must be "):
        load({name: value})


def test_an_unknown_setting_is_refused_with_a_hint_at_the_one_that_was_meant() -> None:
    with pytest.raises(InvalidSettings) as misspelt:
        load({"TIMERS_SIGNING_SECRET": "whsec_c2VjcmV0"})
    assert str(misspelt.value) == (
        "TIMERS_SIGNING_SECRET: there is no such setting; did you mean TIMERS_SIGNING_SECRETS?"
    )
    with pytest.raises(InvalidSettings) as unlike:
        load({"TIMERS_XYZZY": "1"})
    assert str(unlike.value) == "TIMERS_XYZZY: there is no such setting"


def test_a_lambda_logs_an_unknown_setting_and_starts(caplog: pytest.LogCaptureFixture) -> None:
    in_lambda = {"AWS_LAMBDA_FUNCTION_NAME": "timers-dev"}
    assert load(in_lambda | {"TIMERS_SEND_TIMEOUTS": "secret"}) == load(in_lambda)
    (message,) = caplog.messages
    assert message.startswith("TIMERS_SEND_TIMEOUTS: there is no such setting; did you mean")
    assert "secret" not in message


@pytest.mark.parametrize("command", ["deploy", "package"])
def test_a_build_for_a_lambda_refuses_an_unknown_setting(command: str) -> None:
    with pytest.raises(InvalidSettings, match="TIMERS_XYZZY: there is no such setting"):
        load({"AWS_CHALICE_CLI_MODE": "true", "TIMERS_XYZZY": "1"}, ["chalice", command])


def test_a_lambda_needs_no_home() -> None:
    in_lambda = {"AWS_LAMBDA_FUNCTION_NAME": "timers-dev"}
    assert load(in_lambda | {"DATA_DIR": "~no-such-user/timers"}) == load(in_lambda)


def test_an_empty_variable_and_one_without_our_prefix_are_ignored() -> None:
    assert load({"TIMERS_XYZZY": "", "MY_TIMERS_XYZZY": "1", "TIMERSX": "1"}) == load({})


@pytest.mark.parametrize("delays", ["5,-1", "5,nan", "5,inf", "5,x", "5 6"])
def test_one_impossible_retry_delay_is_refused(delays: str) -> None:
    with pytest.raises(InvalidSettings, match="TIMERS_RETRY_DELAYS"):
        load({"TIMERS_RETRY_DELAYS": delays})


@pytest.mark.parametrize("engine", ["embedded", "aws"])
def test_a_key_is_needed_in_a_lambda_and_not_on_this_machine(engine: str) -> None:
    assert not load({"TIMERS_ENGINE": engine}).needs_key
    assert load({"TIMERS_ENGINE": engine} | IN_LAMBDA).needs_key


@pytest.mark.parametrize(
    "arguments",
    [
        ["chalice", "deploy", "--stage", "dev"],
        ["chalice", "package", "out"],
        ["chalice", "gen-policy"],
        ["chalice", "--debug", "local"],
        ["chalice", "Local"],
        ["chalice"],
        [],
    ],
)
def test_an_app_that_chalice_builds_on_this_machine_needs_a_key(arguments: list[str]) -> None:
    assert load(CHALICE, arguments).needs_key
    assert not load({}, arguments).needs_key


def test_chalice_local_needs_no_key_because_it_serves_this_machine() -> None:
    assert not load(CHALICE, ["chalice", "local", "--port", "8000"]).needs_key


@pytest.mark.parametrize("environment", [{}, IN_LAMBDA, CHALICE])
def test_whether_a_key_is_needed_can_be_set(environment: dict[str, str]) -> None:
    arguments = ["chalice", "deploy"]
    assert load(environment | {"TIMERS_AUTH": "keys"}, arguments).needs_key
    assert not load(environment | {"TIMERS_AUTH": "none"}, arguments).needs_key


def test_chalices_command_is_the_first_argument_of_a_chalice_process_only() -> None:
    assert chalice_command(CHALICE, ["/bin/chalice", "local"]) == "local"
    assert chalice_command(CHALICE, ["/bin/chalice"]) == ""
    assert chalice_command({}, ["/bin/chalice", "local"]) is None
    assert chalice_command({"AWS_CHALICE_CLI_MODE": ""}, ["pytest", "local"]) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_without_keys_loopback_may_be_listened_on(host: str) -> None:
    assert is_loopback(host)
    load({}).require_loopback_without_keys(host)


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "", "192.168.1.7", "10.0.0.1", "fe80::1", "box.local", "localhost.evil", "0"],
)
def test_without_keys_no_other_address_may_be_listened_on(host: str) -> None:
    with pytest.raises(InvalidSettings, match="TIMERS_AUTH=keys"):
        load({}).require_loopback_without_keys(host)
    load({"TIMERS_AUTH": "keys"}).require_loopback_without_keys(host)


EMULATOR = {"TIMERS_ENGINE": "aws", "AWS_ENDPOINT_URL": "http://127.0.0.1:4566"}
WITH_KEYS = {"TIMERS_AUTH": "keys"}


@pytest.mark.parametrize(
    ("environment", "allowed"),
    [
        ({}, True),
        ({"TIMERS_ENGINE": "aws"}, True),
        (WITH_KEYS, False),
        (WITH_KEYS | {"HOST": "0.0.0.0"}, False),
        (WITH_KEYS | EMULATOR, True),
        (WITH_KEYS | EMULATOR | {"TIMERS_ENGINE": "embedded"}, False),
        (WITH_KEYS | EMULATOR | {"AWS_ENDPOINT_URL": "https://proxy.corp"}, False),
        (IN_LAMBDA, False),
        (IN_LAMBDA | {"TIMERS_AUTH": "none"}, False),
        (IN_LAMBDA | EMULATOR, True),
        (
            IN_LAMBDA | {"AWS_ENDPOINT_URL": "https://vpce-1.sqs.eu-west-1.vpce.amazonaws.com"},
            False,
        ),
        (IN_LAMBDA | {"AWS_ENDPOINT_URL": "http://dynamodb.eu-west-1.amazonaws.com"}, False),
        (IN_LAMBDA | {"AWS_ENDPOINT_URL": "https://aws.corp"}, False),
    ],
)
def test_private_addresses_may_be_called_only_for_callers_on_this_machine(
    environment: dict[str, str], *, allowed: bool
) -> None:
    assert load(environment).guard.allow_private is allowed
    for word, expected in (("on", True), ("off", False)):
        assert load(environment | {"TIMERS_ALLOW_PRIVATE": word}).guard.allow_private is expected


# Signing secrets


def test_signing_secrets_may_be_in_a_file_with_comments(tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    file.write_text(f"# the new one\n{NEW}\n\n  # {OLD}x\n{OLD} \n", encoding="utf-8")
    assert load({"TIMERS_SIGNING_SECRETS_FILE": str(file)}).signing_keys == (b"n" * 32, b"o" * 32)
    assert load({"TIMERS_SIGNING_SECRETS": f"{NEW} {OLD}"}).signing_keys == (b"n" * 32, b"o" * 32)


def test_signing_secrets_in_a_variable_and_in_a_file_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    file.write_text(OLD, encoding="utf-8")
    with pytest.raises(InvalidSettings, match="set one of them, not both"):
        load({"TIMERS_SIGNING_SECRETS": OLD, "TIMERS_SIGNING_SECRETS_FILE": str(file)})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"", "has no signing secret"),
        (b"# nothing yet\n", "has no signing secret"),
        (b"\xff", "must be text in UTF-8"),
        (b"secret", "a signing secret starts with whsec_"),
        (OLD.encode() + b"!", "a signing secret is whsec_ and base64"),
    ],
)
def test_a_file_without_secrets_is_refused_by_its_name_and_not_shown(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    file = tmp_path / "secrets"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidSettings) as refused:
        load({"TIMERS_SIGNING_SECRETS_FILE": str(file)})
    assert str(refused.value) == f"TIMERS_SIGNING_SECRETS_FILE={file}: {reason}"


def test_a_folder_is_refused_as_a_file_of_secrets(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="cannot be read"):
        load({"TIMERS_SIGNING_SECRETS_FILE": str(tmp_path)})
    with pytest.raises(InvalidSettings, match="must begin at a home that exists"):
        load({"TIMERS_SIGNING_SECRETS_FILE": "~no-such-user/secrets"})
