"""The table of settings: each environment variable once, with its default, its bounds and its help.

``load`` reads these rows, unknown variables are compared with their names, and docs/settings.md is
generated from them.
"""

from __future__ import annotations

from typing import Any

from chalicelib.domain.retry import DEFAULT_DELAYS_S
from chalicelib.domain.timer import MAX_NEAR_S
from chalicelib.settings import values
from chalicelib.settings.addresses import is_emulator
from chalicelib.settings.environment import Environment, Setting, SpecialCase

# The values that the code compares settings with.
EMBEDDED = "embedded"
AWS = "aws"
OPEN = "none"
KEYS = "keys"
PRODUCTION = "prod"
REAL = "real"
TEST = "test"

LAMBDA_SEND_TIMEOUT_S = 10.0
"""The longest call in a Lambda, which has 28 s (``.chalice/config.json``) for two of them."""


def _has_foreign_callers(environment: Environment) -> bool:
    """Tell whether anybody but the user of this machine can set timers."""
    # Without keys only this machine can call; with a key a caller may be any tenant.
    on_this_machine = environment.value(AUTH) == OPEN and not environment.in_lambda
    on_emulator = environment.value(ENGINE) == AWS and is_emulator(environment.value(ENDPOINT_URL))
    return not (on_this_machine or on_emulator)


# Engine and storage

ENGINE = Setting(
    name="TIMERS_ENGINE",
    kind=values.choice(EMBEDDED, AWS),
    default=EMBEDDED,
    special_case=SpecialCase(AWS, "in Lambda", lambda environment: environment.in_lambda),
    help="Where timers are kept and what fires them: a file on this machine, or AWS. Set it to "
    "`aws` (`make run ENGINE=aws`) to run the AWS engine on this machine against an emulator.",
)
STAGE = Setting(
    name="TIMERS_STAGE",
    kind=values.text("a name"),
    default="dev",
    help="The stage, which names every AWS resource: `timers-<stage>…`. `.chalice/config.json` "
    "sets it for each stage; set it yourself to use another stage's resources on an emulator.",
)
ENDPOINT_URL = Setting(
    name="AWS_ENDPOINT_URL",
    kind=values.text("a URL"),
    help="The URL of an emulator of AWS. `make run ENGINE=aws` needs it, and refuses an "
    "address of AWS itself. `make emulator` starts an emulator and prints the address.",
)
CLOCK = Setting(
    name="TIMERS_CLOCK",
    kind=values.choice(REAL, TEST),
    default=REAL,
    help="Set it to `test` (`make run CLOCK=test`) to test what uses the service without waiting: "
    "`POST /_clock/advance` then moves the clock ahead ([api.md](api.md#time-travel)). On one "
    "machine only, and without keys. A folder whose clock was moved cannot be used otherwise.",
)
DATA_DIR = Setting(
    name="DATA_DIR",
    kind=values.folder(),
    default="~/.local/share/webhook-timers",
    special_case=SpecialCase(
        "~/.local/share/webhook-timers-test",
        "with a test clock",
        lambda environment: environment.value(CLOCK) == TEST,
    ),
    help="Where the offline server keeps its timers and API keys. Change it to run a second "
    "server, or to keep them on another disk. Under `chalice local` it must be outside the "
    "checkout, because every write inside it restarts the server.",
)
RETENTION_DAYS = Setting(
    name="TIMERS_RETENTION_DAYS",
    kind=values.number(0.0, 3650.0),
    default="7",
    unit="days",
    help="How long fired and failed timers are kept. Raise it to have longer for a replay of "
    "failed timers; lower it to save disk. On AWS it holds for timers that end after it was set.",
)
NEAR_LIMIT = Setting(
    name="TIMERS_NEAR_LIMIT",
    kind=values.whole(1, MAX_NEAR_S),
    default=f"{MAX_NEAR_S}",
    unit="s",
    help="AWS engine: up to how far ahead a wake-up is a delayed SQS message. A wake-up farther "
    "ahead gets a schedule of EventBridge Scheduler. Lower it only in a test that must see a "
    "schedule fire without waiting 15 minutes.",
)

# The offline server

PORT = Setting(
    name="PORT",
    kind=values.whole(1, 65_535),
    default="8000",
    help="The port on which the offline server listens. Change it when another program has the "
    "port.",
)
HOST = Setting(
    name="HOST",
    kind=values.text("an address"),
    default="127.0.0.1",
    help="The address on which the offline server listens. Change it to let other machines call, "
    "for example to `0.0.0.0`; without keys the server then refuses to start.",
)
ALLOWED_HOSTS = Setting(
    name="TIMERS_ALLOWED_HOSTS",
    kind=values.names(),
    help="The names besides loopback that the offline server accepts without keys in `Host` and "
    "`Origin`. Set it when a proxy on this machine forwards requests under another name.",
)
WORKERS = Setting(
    name="TIMERS_WORKERS",
    kind=values.whole(1, 64),
    default="2",
    unit="processes",
    help="API processes of the offline server. Raise it on a machine with more cores when "
    "requests, not webhooks, are the load: one process writes for all of them.",
)
MAX_IN_FLIGHT = Setting(
    name="TIMERS_MAX_IN_FLIGHT",
    kind=values.whole(1, 1_000_000),
    default="10000",
    unit="webhooks",
    help="How many webhooks the offline server has in flight at once; the limit of open files "
    "(`ulimit -n`) may allow fewer. Raise it when many receivers are slow; lower it to save "
    "memory.",
)

# Callers

AUTH = Setting(
    name="TIMERS_AUTH",
    kind=values.choice(OPEN, KEYS),
    default=OPEN,
    special_case=SpecialCase(KEYS, "on AWS", lambda environment: environment.for_lambda),
    help="Whether a caller must send an API key. Set it to `keys` before other machines or "
    "several tenants may call the offline server; `make key` makes a key.",
)


def _with_keys(value: str) -> SpecialCase:
    """Return the default of a setting that protects tenants from each other."""
    return SpecialCase(value, "with keys", lambda environment: environment.value(AUTH) == KEYS)


CREATES_PER_SECOND = Setting(
    name="TIMERS_CREATES_PER_SECOND",
    kind=values.rate(1_000_000.0),
    default="0",
    special_case=_with_keys("100"),
    unit="timers/s",
    help="How many timers each tenant may set, move, fire or replay a second; 0 is no limit. "
    "Raise it when a tenant that you trust gets 429; lower it to keep one tenant from taking the "
    "capacity of the others.",
)
ALLOW_PURGE = Setting(
    name="TIMERS_ALLOW_PURGE",
    kind=values.switch(),
    default="on",
    special_case=SpecialCase(
        "off",
        f"in stage `{PRODUCTION}`",
        lambda environment: environment.value(STAGE) == PRODUCTION,
    ),
    help="Whether `DELETE /timers` removes all timers. It is meant for tests: set it to `off` "
    "where timers matter.",
)

# Delivery

SEND_TIMEOUT = Setting(
    name="TIMERS_SEND_TIMEOUT",
    kind=values.number(0.1, 60.0),
    default="10",
    unit="s",
    help="How long one call of a receiver may take, and the longest `timeout` that a timer may "
    "ask for. Raise it for slow receivers; lower it to have a timer sent again sooner after its "
    f"sender died. In Lambda at most {LAMBDA_SEND_TIMEOUT_S:g}.",
)
RETRY_DELAYS = Setting(
    name="TIMERS_RETRY_DELAYS",
    kind=values.numbers(0.0, 2_592_000.0),
    default=",".join(str(delay) for delay in DEFAULT_DELAYS_S),
    unit="s",
    help="The waits before the second, third, … attempt. There is one attempt more than there "
    "are waits, and no timer's `max_attempts` may be larger. Shorten the list to give up "
    "earlier, or the waits where receivers recover fast.",
)

KEEP_RESPONSES = Setting(
    name="TIMERS_KEEP_RESPONSES",
    kind=values.switch(),
    default="on",
    help="Whether the log of attempts has the first 256 bytes of the body of the latest failed "
    "response. Switch it off if receivers put secrets into their errors.",
)
CALLS_PER_SECOND = Setting(
    name="TIMERS_CALLS_PER_SECOND",
    kind=values.per_second(1_000_000.0),
    default="0",
    special_case=_with_keys("1000"),
    unit="calls/s",
    help="Embedded engine: how many calls a second the timers of one tenant may make, first "
    "attempts, retries and replays together; 0 is no limit. A call over the limit is late and "
    "never fails for it. Lower it to keep one tenant from taking the network of the others.",
)
RECEIVER_CALLS_PER_SECOND = Setting(
    name="TIMERS_RECEIVER_CALLS_PER_SECOND",
    kind=values.per_second(1_000_000.0),
    default="0",
    special_case=_with_keys("500"),
    unit="calls/s",
    help="Embedded engine: how many calls a second one receiver (host and port) gets, whoever "
    "owns the timers; 0 is no limit. Calls over the limit are late. Lower it to protect "
    "receivers, raise it for receivers of your own.",
)
RECEIVER_CONNECTIONS = Setting(
    name="TIMERS_RECEIVER_CONNECTIONS",
    kind=values.limit(1_000_000),
    default="0",
    special_case=_with_keys("500"),
    unit="connections",
    help="Embedded engine: how many calls to one receiver may be in flight at once, each on a "
    "connection of its own; 0 is no limit. In any case one receiver has at most half of the "
    "places of its tenant. Calls over the limit are late.",
)
FAILING_RECEIVER_CALLS_PER_SECOND = Setting(
    name="TIMERS_FAILING_RECEIVER_CALLS_PER_SECOND",
    kind=values.per_second(1_000_000.0),
    default="0",
    special_case=_with_keys("10"),
    unit="calls/s",
    help="Embedded engine: how many calls a second a receiver gets after 20 failures in a row "
    "(no response, a 5xx or 429), until a call succeeds; 0 is no limit. Lower it to spare "
    "receivers that are down.",
)

# What a tenant may store

STORED_TIMERS = Setting(
    name="TIMERS_STORED_TIMERS",
    kind=values.limit(1_000_000_000),
    default="0",
    special_case=_with_keys("1000000"),
    unit="timers",
    help="Embedded engine: how many timers one tenant may have stored, those included that have "
    "fired or failed and are still kept; 0 is no limit. Further ones get 429. Lower it to "
    "keep one tenant from filling the disk.",
)
STORED_BYTES = Setting(
    name="TIMERS_STORED_BYTES",
    kind=values.limit(1_000_000_000_000),
    default="0",
    special_case=_with_keys("1000000000"),
    unit="bytes",
    help="Embedded engine: how many bytes the URLs of these timers may have in all; 0 is no "
    "limit. Further timers get 429.",
)

# Receivers and signatures

ALLOW_PRIVATE = Setting(
    name="TIMERS_ALLOW_PRIVATE",
    kind=values.switch(),
    default="on",
    special_case=SpecialCase(
        "off", "with keys and in Lambda, but not on an emulator", _has_foreign_callers
    ),
    help="Whether webhooks may go to loopback and private addresses. Turn it on with keys only "
    "if every caller may reach your network (SSRF).",
)
ALLOWED_NETWORKS = Setting(
    name="TIMERS_ALLOWED_NETWORKS",
    kind=values.networks(),
    help="Networks that webhooks may go to in any case, like `10.1.0.0/16,fd00:1::/64`. Prefer it "
    "to `TIMERS_ALLOW_PRIVATE` when only some private receivers are to be called.",
)
SIGNING_SECRETS = Setting(
    name="TIMERS_SIGNING_SECRETS",
    kind=values.secrets(),
    help="The secrets that sign every webhook (Standard Webhooks); without one, webhooks are not "
    "signed. Set two during a rotation, the new one first. On AWS the secrets are in SSM "
    "([security.md](security.md)); this variable overrides them.",
)
SIGNING_SECRETS_FILE = Setting(
    name="TIMERS_SIGNING_SECRETS_FILE",
    kind=values.secrets_file(),
    help="A file of signing secrets, one a line; a line that begins with `#` is a comment. Use it "
    "instead of `TIMERS_SIGNING_SECRETS` to keep secrets out of the environment; setting both is "
    "refused.",
)

SUBJECTS: dict[str, tuple[Setting[Any], ...]] = {
    "Engine and storage": (
        ENGINE,
        STAGE,
        ENDPOINT_URL,
        DATA_DIR,
        CLOCK,
        RETENTION_DAYS,
        NEAR_LIMIT,
    ),
    "The offline server": (PORT, HOST, ALLOWED_HOSTS, WORKERS, MAX_IN_FLIGHT),
    "Callers": (AUTH, CREATES_PER_SECOND, STORED_TIMERS, STORED_BYTES, ALLOW_PURGE),
    "Delivery": (
        SEND_TIMEOUT,
        RETRY_DELAYS,
        KEEP_RESPONSES,
        CALLS_PER_SECOND,
        RECEIVER_CALLS_PER_SECOND,
        RECEIVER_CONNECTIONS,
        FAILING_RECEIVER_CALLS_PER_SECOND,
    ),
    "Receivers and signatures": (
        ALLOW_PRIVATE,
        ALLOWED_NETWORKS,
        SIGNING_SECRETS,
        SIGNING_SECRETS_FILE,
    ),
}
"""The settings in the order of the documentation, by subject."""

TABLE = tuple(setting for settings in SUBJECTS.values() for setting in settings)
