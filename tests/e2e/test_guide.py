"""The commands of docs/guide.md print what it says, and the example test passes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.conftest import MakeServer
from tests.e2e.receiver import Receiver
from tests.e2e.server import Server

PROJECT = Path(__file__).parents[2]
GUIDE = (PROJECT / "docs" / "guide.md").read_text()

_BLOCK = re.compile(r"^```(console|python|output)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_VARIES = [
    (re.compile(r'("time_left": )\d+'), r"\1N"),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), "MOMENT"),
]


MAX_S = 30
"""How long a slow machine may take for one part of the guide, in seconds."""


class Step(NamedTuple):
    """A command or a program of the guide, and what it prints."""

    command: list[str]
    expected: str


def sections() -> dict[str, str]:
    """Return the parts of the guide that have commands, by heading."""
    parts = [part.partition("\n") for part in GUIDE.split("\n## ")[1:]]
    return {heading: text for heading, _, text in parts if _BLOCK.search(text)}


def steps(text: str) -> list[Step]:
    found: list[Step] = []
    for language, block in _BLOCK.findall(text):
        if language == "console":
            found += console(block)
        elif language == "python":
            found.append(Step([sys.executable, "-c", block], ""))
        else:
            found[-1] = found[-1]._replace(expected=block)
    return found


def console(block: str) -> list[Step]:
    """Return the commands of a block. A command ends where its last quote is closed."""
    found: list[Step] = []
    command = ""
    for line in block.splitlines(keepends=True):
        if command:
            command += line
        elif line.startswith("$ "):
            command = line[2:]
        else:
            found[-1] = found[-1]._replace(expected=found[-1].expected + line)
        if command and command.count("'") % 2 == 0 and not command.endswith("\\\n"):
            found.append(Step(["bash", "-c", command], ""))
            command = ""
    return found


def comparable(text: str) -> str:
    """Return ``text`` without what differs from run to run."""
    for pattern, replacement in _VARIES:
        text = pattern.sub(replacement, text)
    return text.strip()


@pytest.mark.skipif(shutil.which("curl") is None, reason="the guide's commands need curl")
@pytest.mark.parametrize("heading", sections())
def test_the_commands_of_the_guide_print_what_it_says(
    make_server: MakeServer, receiver: Receiver, heading: str
) -> None:
    server = make_server(TIMERS_CLOCK="test")
    server.start()
    for step in steps(sections()[heading]):
        command = [adapted(word, server, receiver) for word in step.command]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert comparable(ran.stdout) == comparable(step.expected), (step.command, ran.stderr)
        for left, expected in zip(times(ran.stdout), times(step.expected), strict=True):
            assert expected - MAX_S <= left <= expected, step.command


def times(text: str) -> list[int]:
    """Return the seconds that are left, as printed."""
    return [int(seconds) for seconds in re.findall(r'"time_left": (\d+)', text)]


def adapted(text: str, server: Server, receiver: Receiver) -> str:
    """Return a command for the server and the receiver of this test."""
    text = text.replace("http://127.0.0.1:9000/gone", receiver.url("statuses/410"))
    text = text.replace("http://127.0.0.1:9000/", receiver.url("").rstrip("/") + "/")
    text = text.replace("python3", sys.executable)
    return text.replace("http://127.0.0.1:8000", f"http://127.0.0.1:{server.port}")


def test_the_example_of_a_test_with_a_moved_clock_passes(make_server: MakeServer) -> None:
    server = make_server(TIMERS_CLOCK="test")
    server.start()
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "examples"],
        cwd=PROJECT,
        env={**os.environ, "TIMERS_URL": f"http://127.0.0.1:{server.port}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout


def test_the_guide_has_a_part_for_each_task() -> None:
    assert len(sections()) >= 14
