"""The URL that is called for a timer, and its headers."""

from __future__ import annotations

import base64
from collections.abc import Callable
from ipaddress import IPv4Address
from urllib.parse import urlsplit

import pytest
import requests
from hypothesis import given, settings
from hypothesis.strategies import integers, ip_addresses, lists, sampled_from
from urllib3.util import parse_url
from yarl import URL

from chalicelib.domain.target import MAX_URL_BYTES, MAX_URL_CHARACTERS, parse_target, prepare
from chalicelib.domain.timer import Timer


def timer(url: str, timer_id: int = 7, tenant: str = "default") -> Timer:
    return Timer(tenant=tenant, id=timer_id, url=url, created_at=0, due_at=0, next_attempt_at=0)


def called(url: str) -> str:
    return prepare(timer(url), "store", now=0).url


def authorization(url: str) -> str | None:
    return prepare(timer(url), "store", now=0).headers.get("Authorization")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h", "https://h/7"),
        ("https://h/", "https://h/7"),
        ("https://h/a", "https://h/a/7"),
        ("https://h/a/", "https://h/a/7"),
        ("https://h/a?k=v", "https://h/a/7?k=v"),
        ("https://h/a/?k=v", "https://h/a/7?k=v"),
        ("https://h?k=v", "https://h/7?k=v"),
        ("https://h/a#f", "https://h/a/7"),
        ("https://h/a?k=v#f", "https://h/a/7?k=v"),
        ("https://h#f", "https://h/7"),
        ("https://h/a%2Fb", "https://h/a%2Fb/7"),
        ("https://h/%2f%7E~", "https://h/%2f%7E~/7"),
        ("https://h/café", "https://h/caf%C3%A9/7"),
        ("https://u:p%40@h/a", "https://h/a/7"),
    ],
)
def test_the_id_is_appended_to_the_path(url: str, expected: str) -> None:
    assert called(url) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h/a?q=%2f&r=%7E", "https://h/a/7?q=%2f&r=%7E"),
        ("https://h/a?q=a/b?c", "https://h/a/7?q=a/b?c"),
        ("https://h/a?q=é", "https://h/a/7?q=%C3%A9"),
        ("https://h/a?q=a+b c", "https://h/a/7?q=a+b%20c"),
        ("https://h/a;p=1/b;c", "https://h/a;p=1/b;c/7"),
        ("https://h/a/../b/./c", "https://h/a/../b/./c/7"),
        ("https://h/a b", "https://h/a%20b/7"),
        ("https://h/a\\b", "https://h/a%5Cb/7"),
        ('https://h/"<>^`{|}', "https://h/%22%3C%3E%5E%60%7B%7C%7D/7"),
        ("https://h/a@b:c", "https://h/a@b:c/7"),
    ],
)
def test_path_and_query_are_otherwise_kept_and_made_ascii(url: str, expected: str) -> None:
    assert called(url) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTPS://EXAMPLE.Com/A", "https://example.com/A/7"),
        ("http://h:80", "http://h/7"),
        ("https://h:443", "https://h/7"),
        ("http://h:443", "http://h:443/7"),
        ("https://h:80", "https://h:80/7"),
        ("http://h:/a", "http://h/a/7"),
        ("http://h:65535", "http://h:65535/7"),
        ("http://h:1", "http://h:1/7"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000/7"),
        ("http://[::1]", "http://[::1]/7"),
        ("http://[::1]:8080/a", "http://[::1]:8080/a/7"),
        ("http://[2001:DB8:0:0::1]", "http://[2001:db8::1]/7"),
        ("http://some_host-1.internal", "http://some_host-1.internal/7"),
        ("http://h.", "http://h./7"),
        ("https://bücher.example", "https://xn--bcher-kva.example/7"),
        ("https://straße.de", "https://xn--strae-oqa.de/7"),
        ("https://例え.テスト", "https://xn--r8jz45g.xn--zckzah/7"),
        # What IDNA 2008 has not, as browsers write it.
        ("https://☕.example", "https://xn--53h.example/7"),
        ("https://I❤️.ws", "https://xn--i-7iq.ws/7"),
        ("https://1☕.example.", "https://xn--1-2yp.example./7"),
        ("https://\U0001f468\U0001f3fd.ws", "https://xn--on8hvg.ws/7"),
        ("https://€.example", "https://xn--lzg.example/7"),
        ("https://a_b.bücher.example", "https://a_b.xn--bcher-kva.example/7"),
        ("https://_hook.bücher.example:8443", "https://_hook.xn--bcher-kva.example:8443/7"),
        ("https://a_ü.example", "https://xn--a_-yka.example/7"),
        ("https://☕_x.bücher。example", "https://xn--_x-xtx.xn--bcher-kva.example/7"),
        ("https://BÜCHER.☕", "https://xn--bcher-kva.xn--53h/7"),
        ("http://\uff11\uff12\uff17.1", "http://127.0.0.1/7"),
    ],
)
def test_the_authority_is_made_canonical(url: str, expected: str) -> None:
    assert called(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        "h",
        "someserver.com",
        "/a",
        "//h/a",
        "?k=v",
        "ftp://h",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "data:text/plain,x",
        "ws://h",
        "https+unix://h",
        "ht tp://h",
        "http ://h",
    ],
)
def test_a_url_that_is_not_absolute_http_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"absolute http or https URL|blank around"):
        parse_target(url)


@pytest.mark.parametrize(
    "url",
    [
        "http:",
        "http:h",
        "http:/h",
        "http:\\\\h",
        "http://",
        "https:///a",
        "http://?k=v",
        "http://#f",
        "http://:80",
        "http://:80/a",
        "http://u:p@",
        "http://u:p@/a",
        "http://@",
    ],
)
def test_a_url_without_a_host_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must have a host"):
        parse_target(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://a b",
        "http:// h",
        "http://h /a",
        "http://u p@h/",
        "http://h\\@evil/",
        "http://h\\a",
        " http://h",
        "http://h ",
        "http://h/a ",
        "\u3000http://h",
        "http://h/a\u2003",
    ],
)
def test_a_blank_or_a_backslash_outside_path_and_query_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="blank"):
        parse_target(url)


@pytest.mark.parametrize(
    "port", ["0", "00", "65536", "99999999999999999999", "abc", "-1", "8o", "\uff18\uff10"]
)
def test_a_port_that_no_server_can_have_is_refused(port: str) -> None:
    with pytest.raises(ValueError, match=r"[Pp]ort"):
        parse_target(f"http://h:{port}/a")


@pytest.mark.parametrize(
    "host",
    [
        "a..é",
        ".☕",
        "☕" * 60,
        "☕." * 130,
        "xn--ü",
        "\u0301x",  # begins with a combining mark
        "בa",  # mixes directions
        "x\u200dy",
        "x\u200c☕",
        "é\u00a0b",
        "☕ b",
        "\ufffd",
        "é%",
        "℀☕",
        "☕.\uff11",
    ],
)
def test_a_host_that_browsers_refuse_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="must"):
        parse_target(f"https://{host}/a")


@pytest.mark.parametrize(
    "character", ["\x00", "\t", "\n", "\r", "\x0b", "\x1f", "\x7f"], ids=lambda c: f"{ord(c):#04x}"
)
@pytest.mark.parametrize("url", ["{}http://h/a", "ht{}tp://h/a", "http://h{}/a", "http://h/a{}"])
def test_a_control_character_is_refused_wherever_it_stands(url: str, character: str) -> None:
    with pytest.raises(ValueError, match="control characters"):
        parse_target(url.format(character))


@pytest.mark.parametrize(
    "url",
    [
        "http://.",
        "http://..",
        "http://a..b",
        "http://.a",
        "http://a..",
        "http://-a.b",
        "http://a-.b",
        "http://a%20b",
        "http://a%2eb",
        "http://%00",
        "http://a,b",
        "http://a;b",
        "http://a'b",
        'http://a"b',
        "http://<h>",
        "http://h{",
        "http://$h",
        "http://" + "a" * 64,
        "http://" + "é" * 64,
        "http://" + ".".join(["a" * 60] * 5),
        "http://\u00ad",
        "http://\ufffd",
        "http://a。。b",
    ],
)
def test_an_invalid_host_name_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"must have a (valid )?host"):
        parse_target(url)


@pytest.mark.parametrize(
    "url", ["http://h\u2100.com", "http://h\uff0fa", "http://h\uff03a", "http://a\uff20h"]
)
def test_a_host_that_normalises_to_a_delimiter_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="valid"):
        parse_target(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://[",
        "http://]",
        "http://[]",
        "http://[::1",
        "http://::1]",
        "http://[::1]x",
        "http://[::1%25eth0]",
        "http://[fe80::1%eth0]",
        "http://[1.2.3.4]",
        "http://[gg::1]",
        "http://[::1:2:3:4:5:6:7:8]",
        "http://[v1.a]",
        "http://[h]",
        "http://[::1]@h",
        "http://h[::1]",
        "http://::1",
    ],
)
def test_an_invalid_ipv6_address_in_brackets_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_target(url)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0X7F000001", "127.0.0.1"),
        ("0x7f.0.0.1", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("0000177.0.0.1", "127.0.0.1"),
        ("0x7f.000.0x0.01", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("127.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("127.65535", "127.0.255.255"),
        ("0", "0.0.0.0"),
        ("0x", "0.0.0.0"),
        ("4294967295", "255.255.255.255"),
        ("0xa9fea9fe", "169.254.169.254"),
        ("0251.0376.0251.0376", "169.254.169.254"),
        ("１２７.０.０.１", "127.0.0.1"),  # noqa: RUF001
        ("①②⑦.⓪.⓪.①", "127.0.0.1"),
        ("127。0．0｡1", "127.0.0.1"),  # noqa: RUF001
        ("127\u00ad.0.0.1", "127.0.0.1"),
        ("𝟏𝟐𝟕.𝟎.𝟎.𝟏", "127.0.0.1"),  # noqa: RUF001
    ],
)
def test_an_ipv4_address_is_made_canonical_from_any_notation(host: str, address: str) -> None:
    assert parse_target(f"http://{host}/").host == address


@pytest.mark.parametrize(
    "host",
    [
        "4294967296",
        "99999999999999999999",
        "256.0.0.1",
        "127.0.0.256",
        "127.16777216",
        "1.2.3.4.5",
        "1.2.3.4.0",
        "127.0.0.08",
        "1_0.0.0.1",
        "0x7g.1",
        "0xffffffffff",
        "a.1",
        "example.0x7f",
        "127.0.0.-1",
    ],
)
def test_a_host_that_ends_in_a_number_is_an_address_or_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"must have a valid host"):
        parse_target(f"http://{host}/")


PIECES = [
    *"0127.:/\\@#?%[]",
    *("a", "0x7f", "::1", "::ffff:", "127.0.0.1", "good.example", "localhost", "user:pass@"),
    *(
        "%00",
        "%2e",
        "%40",
        "\uff10",
        "\u2488",
        "\uff0e",
        "\u3002",
        "\u2100",
        "xn--a",
        "\u00df",
        "-",
        "_",
    ),
    *("fe80::1%25eth0", "[::1]", ":80", ":443", "..", "//", "?@", "#@", "\\@", ";@"),
]
"""What URLs with two hosts in them are made of."""

NUMERALS: dict[str, Callable[[int], str]] = {
    "decimal": str,
    "octal": "0{:o}".format,
    "padded octal": "000{:o}".format,
    "hexadecimal": hex,
    "capital hexadecimal": "0X{:X}".format,
}


@settings(derandomize=True, deadline=None, max_examples=1_000)
@given(
    address=ip_addresses(v=4),
    count=integers(1, 4),
    numerals=lists(sampled_from(sorted(NUMERALS)), min_size=4, max_size=4),
    dot=sampled_from(".。．｡"),  # noqa: RUF001
    end=sampled_from(["", "."]),
)
def test_every_way_to_write_an_ipv4_address_is_understood(
    address: IPv4Address, count: int, numerals: list[str], dot: str, end: str
) -> None:
    first, last = address.packed[: count - 1], address.packed[count - 1 :]
    parts = [*first, int.from_bytes(last, "big")]
    written = [NUMERALS[name](part) for name, part in zip(numerals, parts, strict=False)]
    assert parse_target(f"http://{dot.join(written)}{end}/").host == str(address)


@settings(derandomize=True, deadline=None, max_examples=3_000)
@given(lists(sampled_from(PIECES), max_size=9).map("".join))
def test_no_parser_reads_another_host_out_of_the_url_that_is_called(text: str) -> None:
    try:
        target = parse_target(f"http://{text}")
    except ValueError:
        return
    url = target.url(7)
    assert url.isascii()
    ours = (target.host, target.port)
    assert (urlsplit(url).hostname, urlsplit(url).port or 80) == ours
    theirs = parse_url(requests.Request("POST", url).prepare().url or "")
    assert ((theirs.host or "").strip("[]"), theirs.port or 80) == ours
    its = URL(url, encoded=True)
    assert (its.raw_host, its.port) == ours


def test_a_url_may_have_2048_characters() -> None:
    url = "http://h/" + "a" * (MAX_URL_CHARACTERS - 9)
    assert called(url) == url + "/7"


def test_a_url_of_2049_characters_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 2048 characters"):
        parse_target("http://h/" + "a" * (MAX_URL_CHARACTERS - 8))


@pytest.mark.parametrize(
    ("start", "letter", "bytes_each"),
    [
        ("http://h/", "a", 1),
        ("http://h/", "%20", 3),
        ("http://h/", "a b", 5),
        ("http://h/", "é", 6),
        ("http://h/?", "é", 6),
        ("http://h/?q=", "漢", 9),
        ("http://h/", "\U0001f600", 12),
        ("http://h/p?", '"', 3),
        ("https://b\u00fccher.example:8443/", "é", 6),
    ],
)
def test_the_limit_of_a_url_counts_the_bytes_that_are_sent(
    start: str, letter: str, bytes_each: int
) -> None:
    room = MAX_URL_BYTES - len(called(start).replace("/7", "/"))
    longest = start + letter * (room // bytes_each)
    assert MAX_URL_BYTES - bytes_each < parse_target(longest).byte_count() <= MAX_URL_BYTES
    assert len(called(longest)) <= MAX_URL_BYTES + len("/7")
    with pytest.raises(ValueError, match="at most 2048"):
        parse_target(longest + letter)


@pytest.mark.parametrize(
    "url",
    [
        "http://h/#" + "é" * 1_020,
        "http://" + "漢" * 700 + "@h/",
        "http://u:" + "\U0001f600" * 512 + "@h/",
        "http://h/" + "\U0001f600" * 2_039,
    ],
    ids=["fragment", "user", "password", "path"],
)
def test_the_limit_of_a_url_counts_the_bytes_that_are_stored(url: str) -> None:
    assert len(url) <= MAX_URL_CHARACTERS
    with pytest.raises(ValueError, match="at most 2048 bytes"):
        parse_target(url)


def test_a_stored_url_of_an_older_version_is_called_whatever_its_bytes() -> None:
    assert called("http://h/" + "é" * 2_000) == "http://h/" + "%C3%A9" * 2_000 + "/7"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://u:p%40@h", b"u:p@"),
        ("https://u@h", b"u:"),
        ("https://:p@h", b":p"),
        ("https://u:a:b@h", b"u:a:b"),
        ("https://a%40b:p@h", b"a@b:p"),
        ("https://a@b:p@h", b"a@b:p"),
        ("https://ü:p@h", "ü:p".encode()),
        ("https://u:%FF@h", b"u:\xff"),
    ],
)
def test_credentials_of_the_url_become_basic_authentication(url: str, expected: bytes) -> None:
    assert authorization(url) == "Basic " + base64.b64encode(expected).decode()
    assert called(url) == "https://h/7"


@pytest.mark.parametrize("url", ["https://h", "https://@h", "https://:@h", "https://h/u:p@x"])
def test_a_url_without_credentials_brings_no_authorization(url: str) -> None:
    assert authorization(url) is None


def test_a_line_break_escaped_in_the_credentials_stays_out_of_the_headers() -> None:
    value = authorization("https://u%0d%0aX-Evil:%0a@h")
    assert value is not None
    assert not set("\r\n") & set(value)


def test_the_webhook_id_names_store_tenant_and_timer() -> None:
    headers = prepare(timer("https://h", 12, "acme"), "f00", now=0).headers
    assert headers["webhook-id"] == "f00.acme.12"


def test_the_webhook_id_is_the_same_on_every_attempt() -> None:
    early = prepare(timer("https://h"), "store", now=1_000)
    late = prepare(timer("https://h"), "store", now=99_000)
    assert early.headers["webhook-id"] == late.headers["webhook-id"]


def test_the_webhook_timestamp_is_the_attempts_in_whole_seconds() -> None:
    headers = prepare(timer("https://h"), "store", now=1_800_000_000_999).headers
    assert headers["webhook-timestamp"] == "1800000000"


def test_the_call_names_no_content_type() -> None:
    headers = prepare(timer("https://h"), "store", now=0).headers
    assert "content-type" not in {name.lower() for name in headers}


def test_a_prepared_call_does_not_show_its_headers() -> None:
    call = prepare(timer("https://u:secret@h"), "store", now=0)
    assert "Basic" not in repr(call)
    assert "secret" not in repr(call)
