"""The lines that the offline server prints once it responds."""

from __future__ import annotations

from chalicelib.settings import Settings
from local.address import url

_TEST_CLOCK = (
    "The clock is a TEST CLOCK: POST /_clock/advance moves it. Use it for no timer that matters\n"
)


def banner(settings: Settings, place: str) -> str:
    """Return where the server listens, where it keeps timers (``place``), and how to set one."""
    address = url(settings)
    key, header = "", ""
    if settings.needs_key:
        key = (
            "Every caller needs a key: make key TENANT=default, with the settings of this server\n"
        )
        header = " -H 'Authorization: Bearer wt_...'"
    return (
        f"Webhook Timers listens on {address}\n"
        f"Timers are kept {place}\n"
        f"{_TEST_CLOCK if settings.test_clock else ''}"
        f"{key}"
        "Set one:\n"
        f"  curl -X POST {address}/timers{header} -H 'Content-Type: application/json' \\\n"
        '    -d \'{"seconds": 5, "url": "http://127.0.0.1:9000/hook"}\''
    )
