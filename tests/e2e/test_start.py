"""A start that cannot succeed ends at once, with one line that says what to do."""

from __future__ import annotations

import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.conftest import MakeServer
from tests.e2e.server import Server
from tests.support.waiting import eventually


def refusal(server: Server) -> str:
    """Start ``server``, which must fail; return the one line it printed."""
    server.launch()
    assert server.exit_code() > 0
    lines = server.output.splitlines()
    assert len(lines) == 1, server.output
    assert lines[0].startswith("webhook-timers: ")
    assert eventually(lambda: not server.processes())
    return lines[0]


def test_a_second_server_on_the_same_folder_is_refused(
    server: Server, make_server: MakeServer
) -> None:
    second = make_server()

    line = refusal(second)

    assert "another server (pid " in line
    assert str(server.data_dir) in line
    assert "DATA_DIR=" in line
    assert server.set_timer("http://127.0.0.1:1/", 3600) == 1


def test_a_port_in_use_is_named_with_the_way_out(make_server: MakeServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        line = refusal(make_server(port=port))
    assert f"127.0.0.1:{port}" in line
    assert f"make run PORT={port + 1}" in line


def test_the_port_of_another_server_is_not_shared(server: Server, make_server: MakeServer) -> None:
    line = refusal(make_server(server.data_dir.parent / "other", port=server.port))

    assert "make run PORT=" in line
    assert server.healthy()


def test_a_folder_that_cannot_be_made_is_named(make_server: MakeServer, tmp_path: Path) -> None:
    # Below a regular file nobody can make a folder, not even root.
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "data"

    line = refusal(make_server(folder))

    assert str(folder) in line
    assert "DATA_DIR=" in line


def test_a_folder_that_others_may_write_is_refused_with_the_cure(
    make_server: MakeServer, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o777)

    line = refusal(make_server(folder))

    assert str(folder) in line
    assert f"chmod 700 {folder}" in line
    assert list(folder.iterdir()) == []


def test_a_link_in_the_place_of_the_store_is_refused(
    make_server: MakeServer, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir(0o700)
    (folder / "timers.db").symlink_to(tmp_path / "elsewhere")

    line = refusal(make_server(folder))

    assert f"{folder / 'timers.db'} cannot be opened: it is a symbolic link" in line
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("content", [b"not a database", b"\xff" * 8192])
def test_a_damaged_store_is_refused_and_left_as_it_is(
    make_server: MakeServer, tmp_path: Path, content: bytes
) -> None:
    store = _store(tmp_path)
    store.write_bytes(content)

    line = refusal(make_server())

    assert str(store) in line
    assert "damaged" in line
    assert store.read_bytes() == content


def test_a_store_of_a_newer_version_is_refused(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server()
    server.start()
    server.kill()
    store = server.data_dir / "timers.db"
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("PRAGMA user_version=99")

    line = refusal(make_server())

    assert str(store) in line
    assert "newer version" in line


def test_a_file_of_another_application_is_refused(make_server: MakeServer, tmp_path: Path) -> None:
    store = _store(tmp_path)
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("PRAGMA application_id=7")

    assert "another application" in refusal(make_server())


@pytest.mark.parametrize(
    ("name", "value"), [("TIMERS_WORKERS", "none"), ("PORT", "70000"), ("TIMERS_ENGINE", "cloud")]
)
def test_a_wrong_setting_is_named(make_server: MakeServer, name: str, value: str) -> None:
    server = make_server(port=int(value)) if name == "PORT" else make_server(**{name: value})

    assert f"{name}={value}" in refusal(server)


def test_a_timer_more_than_the_quota_is_refused_by_name(make_server: MakeServer) -> None:
    server = make_server(TIMERS_STORED_TIMERS="1")
    server.start()
    timer_id = server.set_timer("http://127.0.0.1:1/", 3600)
    timer = {"seconds": 3600, "url": "http://127.0.0.1:1/"}

    refused = server.request("POST", "/timers", timer)

    assert refused.status == 429
    assert refused.json()["type"] == "urn:webhook-timers:quota-exceeded"
    assert "Retry-After" not in refused.headers
    assert server.request("DELETE", f"/timers/{timer_id}").status == 204
    assert server.request("POST", "/timers", timer).status == 201


def test_without_keys_it_serves_this_machine_only(make_server: MakeServer) -> None:
    line = refusal(make_server(HOST="0.0.0.0"))
    assert "0.0.0.0" in line
    assert "TIMERS_AUTH=keys" in line


def _store(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder / "timers.db"
