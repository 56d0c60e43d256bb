"""The kinds of value of a setting: each accepts some texts and reads the value from them."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from chalicelib.domain.errors import InvalidSettings
from chalicelib.domain.rate import Rate
from chalicelib.domain.signing import read_secrets
from chalicelib.domain.ssrf_guard import Network

T = TypeVar("T")
N = TypeVar("N", int, float)


class Kind(Generic[T]):
    """One kind of value.

    ``parse`` takes the name of the variable and its text. It raises ``InvalidSettings``, which
    names the variable. The other fields describe the accepted texts to a reader: ``form`` in words,
    ``choices`` as a list, ``bounds`` as the smallest and the largest number.
    """

    # Not a dataclass, and neither is Setting: a dataclass is compiled at import, and every Lambda
    # imports this.
    __slots__ = ("bounds", "choices", "form", "parse")

    def __init__(
        self,
        parse: Callable[[str, str], T],
        form: str = "",
        *,
        choices: tuple[str, ...] = (),
        bounds: tuple[float, float] | None = None,
    ) -> None:
        self.parse = parse
        self.form = form
        self.choices = choices
        self.bounds = bounds


def text(form: str) -> Kind[str]:
    """Return the kind that accepts any text, which ``form`` describes."""
    return Kind(lambda _name, given: given, form)


def choice(*choices: str) -> Kind[str]:
    """Return the kind that accepts one of ``choices``."""
    return Kind(lambda name, given: _one_of(choices, name, given), choices=choices)


def switch() -> Kind[bool]:
    """Return the kind that accepts ``on`` or ``off``."""
    choices = ("on", "off")
    return Kind(lambda name, given: _one_of(choices, name, given) == "on", choices=choices)


def whole(least: int, most: int) -> Kind[int]:
    """Return the kind that accepts a whole number, both bounds included."""
    return Kind(lambda name, given: _between(name, given, int, least, most), bounds=(least, most))


def number(least: float, most: float) -> Kind[float]:
    """Return the kind that accepts a number, both bounds included."""
    return Kind(lambda name, given: _between(name, given, float, least, most), bounds=(least, most))


def numbers(least: float, most: float) -> Kind[tuple[float, ...]]:
    """Return the kind that accepts numbers separated by commas, both bounds included."""

    def parse(name: str, given: str) -> tuple[float, ...]:
        return tuple(_between(name, word, float, least, most) for word in _words(given))

    return Kind(parse, "each, separated by commas", bounds=(least, most))


def rate(most: float) -> Kind[Rate | None]:
    """Return the kind that accepts a number per second; 0 becomes None, no limit."""

    def parse(name: str, given: str) -> Rate | None:
        per_s = _between(name, given, float, 0.0, most)
        return Rate(per_s) if per_s else None

    return Kind(parse, bounds=(0.0, most))


def per_second(most: float) -> Kind[float | None]:
    """Return the kind that accepts a number per second; 0 becomes None, no limit."""
    return Kind(
        lambda name, given: _between(name, given, float, 0.0, most) or None, bounds=(0.0, most)
    )


def limit(most: int) -> Kind[int | None]:
    """Return the kind that accepts a whole number; 0 becomes None, no limit."""
    return Kind(lambda name, given: _between(name, given, int, 0, most) or None, bounds=(0, most))


def names() -> Kind[frozenset[str]]:
    """Return the kind that accepts names separated by commas, in any case."""
    return Kind(lambda _name, given: frozenset(_words(given)), "names, separated by commas")


def networks() -> Kind[tuple[Network, ...]]:
    """Return the kind that accepts IP networks separated by commas."""

    def parse(name: str, given: str) -> tuple[Network, ...]:
        try:
            return tuple(ipaddress.ip_network(word) for word in _words(given))
        except ValueError as error:
            raise InvalidSettings(f"{name}: {error}") from error

    return Kind(parse, "networks, separated by commas")


def folder() -> Kind[Path]:
    """Return the kind that accepts the path of a folder, which may begin with ``~``."""

    def parse(name: str, given: str) -> Path:
        try:
            return Path(given).expanduser().absolute()
        except RuntimeError as error:
            raise InvalidSettings(f"{name}={given}: must begin at a home that exists") from error

    return Kind(parse, "a folder")


def secrets() -> Kind[tuple[bytes, ...]]:
    """Return the kind that accepts signing secrets separated by blanks. No error shows one."""

    def parse(name: str, given: str) -> tuple[bytes, ...]:
        try:
            return read_secrets(given)
        except ValueError as error:
            # From None, so that no part of a secret can reach a log.
            raise InvalidSettings(f"{name}: {error}") from None

    return Kind(parse, "`whsec_…`, separated by blanks")


def secrets_file() -> Kind[tuple[bytes, ...]]:
    """Return the kind that accepts the path of a file of signing secrets. No error shows one."""

    def parse(name: str, given: str) -> tuple[bytes, ...]:
        if not given:
            return ()
        try:
            keys = read_secrets(_uncommented(given))
        except ValueError as error:
            raise InvalidSettings(f"{name}={given}: {error}") from None
        if not keys:
            raise InvalidSettings(f"{name}={given}: has no signing secret")
        return keys

    return Kind(parse, "a file")


def _words(given: str) -> list[str]:
    return [word.strip().lower() for word in given.split(",") if word.strip()]


def _one_of(choices: tuple[str, ...], name: str, given: str) -> str:
    if given not in choices:
        raise InvalidSettings(f"{name}={given}: must be one of {', '.join(choices)}")
    return given


def _between(name: str, given: str, convert: Callable[[str], N], least: N, most: N) -> N:
    try:
        value = convert(given)
    except ValueError:
        value = None
    # `not least <= value` also refuses NaN, for which every comparison is false.
    if value is None or not least <= value <= most:
        raise InvalidSettings(f"{name}={given}: must be a number from {least} to {most}")
    return value


def _uncommented(path: str) -> str:
    """Return the lines of a file that are not comments.

    Raises ``ValueError``, which never shows the content of the file.
    """
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError("must be text in UTF-8") from None
    except RuntimeError:
        raise ValueError("must begin at a home that exists") from None
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))
