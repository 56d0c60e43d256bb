"""The description of one setting, and the environment from which its value is read."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from chalicelib.domain.errors import InvalidSettings
from chalicelib.settings.values import Kind

log = logging.getLogger(__name__)

T = TypeVar("T")

LOCAL = "local"
"""Chalice's command that serves on this machine."""

_PREFIX = "TIMERS_"


class SpecialCase:
    """A second default, ``text``, if ``applies`` says so. ``where`` tells a reader when that is."""

    __slots__ = ("applies", "text", "where")

    def __init__(self, text: str, where: str, applies: Callable[[Environment], bool]) -> None:
        self.text = text
        self.where = where
        self.applies = applies


class Setting(Generic[T]):
    """One environment variable.

    ``default`` is text as a user would write it, empty for none. ``special_case`` is the other
    default of a setting whose default depends on where the process runs or on other settings.
    ``help`` is Markdown: what the setting does, and when to change it.
    """

    __slots__ = ("default", "help", "kind", "name", "special_case", "unit")

    def __init__(
        self,
        *,
        name: str,
        kind: Kind[T],
        default: str = "",
        special_case: SpecialCase | None = None,
        unit: str = "",
        help: str,  # noqa: A002 - the word that argparse uses for the same
    ) -> None:
        self.name = name
        self.kind = kind
        self.default = default
        self.special_case = special_case
        self.unit = unit
        self.help = help


class Environment:
    """The variables and the command line of one process. An empty variable counts as not set."""

    def __init__(
        self, variables: Mapping[str, str], arguments: Sequence[str] | None = None
    ) -> None:
        command = chalice_command(variables, arguments)
        self._variables = variables
        self.in_lambda = bool(variables.get("AWS_LAMBDA_FUNCTION_NAME"))
        self.under_chalice_local = command == LOCAL
        # `chalice deploy` and `chalice package` build the routes for a Lambda, on this machine:
        # those routes must ask for a key.
        self.for_lambda = self.in_lambda or command not in (None, LOCAL)

    def value(self, setting: Setting[T]) -> T:
        """Return the value of ``setting``, by default its default. Raises ``InvalidSettings``."""
        given = self._variables.get(setting.name)
        return setting.kind.parse(setting.name, given) if given else self.default(setting)

    def default(self, setting: Setting[T]) -> T:
        """Return the default of ``setting`` in this process. Raises ``InvalidSettings``."""
        case = setting.special_case
        text = case.text if case and case.applies(self) else setting.default
        return setting.kind.parse(setting.name, text)

    def is_set(self, setting: Setting[Any]) -> bool:
        """Tell whether the variable of ``setting`` is there and not empty."""
        return bool(self._variables.get(setting.name))

    def reject_unknown_variables(self, settings: Iterable[Setting[Any]]) -> None:
        """Raise ``InvalidSettings`` for a variable with our prefix that is not in ``settings``.

        A Lambda only logs its name. A deployment changes code and variables in two steps, so one
        version may run for a moment with the variables of another.
        """
        known = sorted(setting.name for setting in settings)
        for name in sorted(self._variables.keys() - known):
            if not name.startswith(_PREFIX) or not self._variables[name]:
                continue
            reason = f"{name}: there is no such setting{_hint(name, known)}"
            if not self.in_lambda:
                raise InvalidSettings(reason)
            log.warning("%s (ignored)", reason)


def chalice_command(
    variables: Mapping[str, str] = os.environ, arguments: Sequence[str] | None = None
) -> str | None:
    """Return Chalice's command that this process runs, None if it runs none.

    Every command imports app.py: ``local`` to serve it, ``package`` and ``deploy`` to build the
    Lambdas from it. Chalice sets ``AWS_CHALICE_CLI_MODE`` for all of them, so only the command line
    tells which one runs.
    """
    if not variables.get("AWS_CHALICE_CLI_MODE"):
        return None
    return "".join((sys.argv if arguments is None else arguments)[1:2])


def _hint(name: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches  # imported late: a cold start must not pay for it

    close = get_close_matches(name, known, 1, cutoff=0.8)
    return f"; did you mean {close[0]}?" if close else ""
