"""The offline server as a user starts it: real processes, in a process group of their own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.waiting import PATIENCE_S, eventually

PROJECT = Path(__file__).resolve().parents[2]
MAKE_RUN = (sys.executable, "-m", "local")
_OURS = ("PORT", "HOST", "DATA_DIR", "TIMERS_", "AWS_")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@dataclass(frozen=True)
class Response:
    """A response of the API."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Process:
    """One line of ``ps``."""

    pid: int
    parent: int
    group: int
    command: str


class Client:
    """Calls the API; each thread keeps a connection of its own, and opens it again when lost."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._connections: dict[int, http.client.HTTPConnection] = {}

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send one request. Raises ``OSError`` and ``http.client.HTTPException``."""
        connection = self._connections.setdefault(
            threading.get_ident(),
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S),
        )
        payload = None if body is None else json.dumps(body)
        given = {"Content-Type": "application/json"} if headers is None else dict(headers)
        try:
            connection.request(method, path, payload, given)
            response = connection.getresponse()
            return Response(response.status, response.headers, response.read())
        except (OSError, http.client.HTTPException):
            connection.close()
            raise

    def try_request(self, method: str, path: str, body: object = None) -> Response | None:
        """Send one request; None when the connection was refused or lost."""
        try:
            return self.request(method, path, body)
        except (OSError, http.client.HTTPException):
            return None

    def set_timer(self, url: str, seconds: int) -> int:
        """Set a timer and return its id."""
        response = self.request("POST", "/timers", {"seconds": seconds, "url": url})
        assert response.status == 201, response
        body = response.json()
        assert body.keys() == {"id"}
        timer_id: int = body["id"]
        assert response.headers["Location"] == f"/timers/{timer_id}"
        return timer_id

    def set_timers(self, count: int, url: str, seconds: int) -> list[int]:
        """Set many timers from a few threads; return their ids."""
        with ThreadPoolExecutor(8) as threads:
            return list(threads.map(lambda _: self.set_timer(url, seconds), range(count)))

    def time_left(self, timer_id: int) -> int:
        response = self.request("GET", f"/timers/{timer_id}")
        assert response.status == 200, response
        body = response.json()
        assert body.keys() == {"id", "time_left"}
        assert body["id"] == timer_id
        time_left: int = body["time_left"]
        return time_left

    def timers(self, status: str | None = None) -> dict[int, dict[str, Any]]:
        """Return every timer by id, page after page."""
        path: str | None = "/timers?limit=1000" + (f"&status={status}" if status else "")
        found = []
        while path:
            response = self.request("GET", path)
            assert response.status == 200, response
            found += response.json()
            path = response.headers.get("Link", "").partition(">")[0].removeprefix("<") or None
        timers = {timer["id"]: timer for timer in found}
        assert len(timers) == len(found)
        return timers

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()


class Server(Client):
    """One start after another of a server on the same port and data folder."""

    def __init__(
        self,
        data_dir: Path,
        output: Path,
        *,
        port: int | None = None,
        command: Sequence[str] = MAKE_RUN,
        project: Path = PROJECT,
        **settings: str,
    ) -> None:
        super().__init__(port or free_port())
        self.data_dir = data_dir
        self._output = output
        self._command = command
        self._project = project
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(_OURS)
        }
        self._environment = inherited | settings
        self._environment |= {"PORT": str(self.port), "DATA_DIR": str(data_dir)}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    @property
    def environment(self) -> dict[str, str]:
        """The environment that it runs in, for a command that is to have the same."""
        return self._environment

    @property
    def output(self) -> str:
        """Everything the server has printed, over all its starts."""
        return self._output.read_text()

    def launch(self) -> None:
        """Start the server and return at once."""
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [part.replace("{port}", str(self.port)) for part in self._command],
                cwd=self._project,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start(self) -> None:
        """Start the server and return when it serves."""
        self.launch()
        self.wait_until_it_serves()

    def wait_until_it_serves(self) -> None:
        assert eventually(self.healthy), f"the server does not serve:\n{self.output}"

    def healthy(self) -> bool:
        response = self.try_request("GET", "/health")
        return response is not None and response.status == 200

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the supervisor, or like a terminal to its whole group."""
        (os.killpg if group else os.kill)(self.pid, number)

    def exit_code(self) -> int:
        """Wait until the server has ended by itself; return its exit code."""
        assert self._process
        try:
            code = self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server does not end:\n{self.output}") from None
        self.close()
        return code

    def kill(self) -> None:
        """Kill every process of the server with -9, and wait until they are gone."""
        if self._process is None:
            return
        # macOS says "not permitted" where only zombies are left.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert eventually(lambda: not self.processes())
        self.close()

    def processes(self) -> list[Process]:
        """Return the live processes of the server's group."""
        return [process for process in _ps() if process.group == self.pid]

    def child(self, module: str) -> Process | None:
        """Return the child of the supervisor that runs ``module``."""
        children = [
            process
            for process in self.processes()
            if process.parent == self.pid and module in process.command
        ]
        return children[0] if children else None

    def api_workers(self) -> list[Process]:
        """Return the processes that serve requests."""
        api = self.child("local.server")
        return [
            process
            for process in self.processes()
            if api and process.parent == api.pid and "resource_tracker" not in process.command
        ]


def _ps() -> list[Process]:
    listing = subprocess.run(
        ["ps", "-axwwo", "pid=,ppid=,pgid=,stat=,command="],
        capture_output=True,
        check=True,
        text=True,
        errors="replace",
    )
    rows = (line.split(None, 4) for line in listing.stdout.splitlines())
    return [
        Process(int(pid), int(parent), int(group), "".join(command))
        for pid, parent, group, state, *command in rows
        if not state.startswith("Z")
    ]
