"""Every row of the table of settings is what ``load`` does."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chalicelib.domain.errors import InvalidSettings
from chalicelib.domain.rate import Rate
from chalicelib.domain.signing import write_secret
from chalicelib.settings import load, table
from chalicelib.settings.environment import Setting
from chalicelib.settings.table import TABLE

SECRET = write_secret(b"s" * 32)

# One accepted value for each row, other than its default.
EXAMPLES = {
    "TIMERS_ENGINE": "aws",
    "TIMERS_STAGE": "prod",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:4566",
    "DATA_DIR": "/timers",
    "TIMERS_CLOCK": "test",
    "TIMERS_RETENTION_DAYS": "0.5",
    "TIMERS_NEAR_LIMIT": "5",
    "PORT": "8080",
    "HOST": "::1",
    "TIMERS_ALLOWED_HOSTS": "box.local",
    "TIMERS_WORKERS": "4",
    "TIMERS_MAX_IN_FLIGHT": "100",
    "TIMERS_AUTH": "keys",
    "TIMERS_CREATES_PER_SECOND": "2.5",
    "TIMERS_CALLS_PER_SECOND": "2000",
    "TIMERS_RECEIVER_CALLS_PER_SECOND": "50",
    "TIMERS_RECEIVER_CONNECTIONS": "20",
    "TIMERS_STORED_TIMERS": "1000",
    "TIMERS_STORED_BYTES": "1000000",
    "TIMERS_FAILING_RECEIVER_CALLS_PER_SECOND": "2.5",
    "TIMERS_ALLOW_PURGE": "off",
    "TIMERS_SEND_TIMEOUT": "2",
    "TIMERS_RETRY_DELAYS": "1,2",
    "TIMERS_KEEP_RESPONSES": "off",
    "TIMERS_ALLOW_PRIVATE": "off",
    "TIMERS_ALLOWED_NETWORKS": "10.1.0.0/16",
    "TIMERS_SIGNING_SECRETS": SECRET,
}
EXAMPLE_OF_A_FILE = "TIMERS_SIGNING_SECRETS_FILE"

BOUNDED = [setting for setting in TABLE if setting.kind.bounds]
CHOICES = [setting for setting in TABLE if setting.kind.choices]
WITH_OUR_PREFIX = [setting for setting in TABLE if setting.name.startswith("TIMERS_")]
WITH_SPECIAL_CASE = [setting for setting in TABLE if setting.special_case]


def name_of(setting: Setting[Any]) -> str:
    return setting.name


every = pytest.mark.parametrize("setting", TABLE, ids=name_of)


def bounds_of(setting: Setting[Any]) -> tuple[float, float]:
    assert setting.kind.bounds
    return setting.kind.bounds


def just_outside(setting: Setting[Any]) -> Iterator[str]:
    """Yield the text of the number below the lower bound, and of the one above the upper."""
    least, most = bounds_of(setting)
    if isinstance(least, int):
        yield from (str(least - 1), str(int(most) + 1))
    else:
        yield from (str(math.nextafter(least, -math.inf)), str(math.nextafter(most, math.inf)))


def test_every_setting_is_in_the_table_once() -> None:
    described = [value for value in vars(table).values() if isinstance(value, Setting)]
    assert sorted(map(name_of, TABLE)) == sorted(map(name_of, described))
    assert len(set(map(name_of, TABLE))) == len(TABLE)


@every
def test_its_default_is_accepted_and_is_what_an_unset_variable_means(setting: Setting[Any]) -> None:
    assert load({setting.name: setting.default}) == load({setting.name: ""}) == load({})


@pytest.mark.parametrize("setting", WITH_SPECIAL_CASE, ids=name_of)
def test_its_other_default_is_accepted(setting: Setting[Any]) -> None:
    assert setting.special_case
    assert load({setting.name: setting.special_case.text}) != load({})


@every
def test_setting_it_changes_the_settings(setting: Setting[Any], tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    file.write_text(SECRET, encoding="utf-8")
    examples = EXAMPLES | {EXAMPLE_OF_A_FILE: str(file)}
    assert load({setting.name: examples[setting.name]}) != load({})


@pytest.mark.parametrize("setting", WITH_OUR_PREFIX, ids=name_of)
def test_its_misspelt_name_is_refused_with_a_hint(setting: Setting[Any]) -> None:
    with pytest.raises(InvalidSettings) as refused:
        load({f"{setting.name}X": "1"})
    assert str(refused.value) == (
        f"{setting.name}X: there is no such setting; did you mean {setting.name}?"
    )


@every
def test_its_help_is_sentences(setting: Setting[Any]) -> None:
    assert setting.help[0].isupper()
    assert setting.help.endswith(".")


@pytest.mark.parametrize("setting", BOUNDED, ids=name_of)
def test_both_bounds_are_accepted(setting: Setting[Any]) -> None:
    for bound in bounds_of(setting):
        load({setting.name: str(bound)})


@pytest.mark.parametrize("setting", BOUNDED, ids=name_of)
def test_a_number_just_outside_the_bounds_is_refused(setting: Setting[Any]) -> None:
    least, most = bounds_of(setting)
    for text in (*just_outside(setting), "nan", "inf", "-inf", "x", "1 2"):
        with pytest.raises(InvalidSettings) as refused:
            load({setting.name: text})
        assert str(refused.value) == (
            f"{setting.name}={text}: must be a number from {least} to {most}"
        )


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("PORT", "1 to 65535"),
        ("TIMERS_WORKERS", "1 to 64"),
        ("TIMERS_MAX_IN_FLIGHT", "1 to 1000000"),
        ("TIMERS_NEAR_LIMIT", "1 to 900"),
        ("TIMERS_RETENTION_DAYS", "0.0 to 3650.0"),
        ("TIMERS_CREATES_PER_SECOND", "0.0 to 1000000.0"),
        ("TIMERS_SEND_TIMEOUT", "0.1 to 60.0"),
        ("TIMERS_RETRY_DELAYS", "0.0 to 2592000.0"),
    ],
)
def test_a_refusal_shows_the_bounds(name: str, bounds: str) -> None:
    with pytest.raises(InvalidSettings) as refused:
        load({name: "-1"})
    assert str(refused.value) == f"{name}=-1: must be a number from {bounds}"


@pytest.mark.parametrize("setting", CHOICES, ids=name_of)
def test_each_choice_is_accepted_and_nothing_else(setting: Setting[Any]) -> None:
    for choice in setting.kind.choices:
        load({setting.name: choice})
        for other in (choice.upper(), f" {choice}", f"{choice}x"):
            with pytest.raises(InvalidSettings) as refused:
                load({setting.name: other})
            assert str(refused.value) == (
                f"{setting.name}={other}: must be one of {', '.join(setting.kind.choices)}"
            )


def test_tenants_have_a_rate_with_keys_and_none_without() -> None:
    assert load({}).rate is None
    assert load({"TIMERS_AUTH": "keys"}).rate == Rate(100.0)
    assert load({"TIMERS_AUTH": "keys", "TIMERS_CREATES_PER_SECOND": "0"}).rate is None


def test_a_list_of_commas_alone_counts_as_not_set() -> None:
    for name in ("TIMERS_RETRY_DELAYS", "TIMERS_ALLOWED_HOSTS", "TIMERS_ALLOWED_NETWORKS"):
        assert load({name: " , ,"}) == load({})
