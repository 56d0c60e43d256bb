"""An emulator of AWS, and servers of the aws engine on it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chalicelib.domain.errors import StartupError
from local.emulator.ministack import Emulator, install
from tests.e2e.conftest import MakeServer, make_server, receiver
from tests.e2e.server import Server, free_port
from tests.e2e_aws.stage import Stage

__all__ = ["make_server", "receiver"]

_stages = itertools.count(1)


def skip_offline(reason: str) -> None:
    """Skip a test whose packages cannot be had without a network; in CI that is a failure."""
    if not os.environ.get("CI"):
        pytest.skip(reason)


@pytest.fixture(scope="session")
def installed() -> None:
    """Install the emulator, where that is still to do."""
    try:
        install()
    except StartupError as error:
        skip_offline(error.detail)
        raise


@pytest.fixture(scope="session")
def shared_emulator(
    installed: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Emulator]:
    """Return an emulator that no test may stop."""
    emulator = Emulator(tmp_path_factory.mktemp("emulator"), free_port())
    emulator.start()
    yield emulator
    emulator.stop()


@pytest.fixture
def stage(shared_emulator: Emulator) -> Stage:
    """Return a stage of its own, of which nothing exists yet."""
    return Stage(shared_emulator.address, f"t{next(_stages)}")


@pytest.fixture
def own_emulator(installed: None, tmp_path: Path) -> Iterator[Emulator]:
    """Return an emulator that a test may stop and start."""
    emulator = Emulator(tmp_path / "emulator", free_port())
    emulator.start()
    yield emulator
    emulator.stop()


MakeAwsServer = Callable[..., Server]


@pytest.fixture
def make_aws_server(make_server: MakeServer) -> MakeAwsServer:
    """Return a function that makes servers of the aws engine."""

    def make(stage: Stage, **options: object) -> Server:
        settings = {
            "TIMERS_ENGINE": "aws",
            "AWS_ENDPOINT_URL": stage.address,
            "TIMERS_STAGE": stage.name,
            "TIMERS_WORKERS": "1",
        }
        return make_server(**{**settings, **options})

    return make


@pytest.fixture
def server(make_aws_server: MakeAwsServer, stage: Stage) -> Server:
    """Return a server that serves, and for which five seconds are near."""
    server = make_aws_server(stage, TIMERS_NEAR_LIMIT="5")
    server.start()
    return server
