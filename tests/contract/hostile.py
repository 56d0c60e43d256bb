"""URLs that lead to a forbidden address, by every trick that we know."""

from __future__ import annotations

from tests.contract.network import PUBLIC

METADATA = "169.254.169.254"

NAMES: dict[str, list[list[str]]] = {
    "good.example": [[PUBLIC[0]]],
    "localhost": [["127.0.0.1", "::1"]],
    "localhost.localdomain": [["127.0.0.1"]],
    "ip6-localhost": [["::1"]],
    "this-machine": [["127.0.1.1"]],
    "loopback.example": [["127.0.0.1"]],
    "127.0.0.1.nip.example": [["127.0.0.1"]],
    "xn--lckbc-example.example": [["127.0.0.1"]],
    "loopback6.example": [["::1"]],
    "unspecified.example": [["0.0.0.0"]],
    "unspecified6.example": [["::"]],
    "private.example": [["10.0.0.1"]],
    "router.local": [["192.168.1.1"]],
    "kubernetes.default.svc": [["10.96.0.1"]],
    "shared.example": [["100.64.0.1"]],
    "link-local.example": [["fe80::1"]],
    "unique-local.example": [["fd12:3456:789a::1"]],
    "mapped.example": [["::ffff:127.0.0.1"]],
    "nat64.example": [["64:ff9b::7f00:1"]],
    "6to4.example": [["2002:7f00:1::1"]],
    "metadata.google.internal": [[METADATA]],
    "metadata": [[METADATA]],
    "instance-data.ec2.internal": [[METADATA]],
    "instance-data6.example": [["fd00:ec2::254"]],
    "metadata.azure.example": [["168.63.129.16"]],
    "good-then-bad.example": [[PUBLIC[0], "127.0.0.1"]],
    "bad-then-good.example": [["127.0.0.1", PUBLIC[0]]],
    "good-then-bad6.example": [[PUBLIC[0], PUBLIC[1], "::1"]],
    "good6-then-metadata.example": [[PUBLIC[1], METADATA]],
    "many.example": [[*(f"93.184.{part}.34" for part in range(1, 200)), "127.0.0.1"]],
    "many-private.example": [[f"10.0.0.{part}" for part in range(1, 200)]],
}
"""The names in these URLs, and the addresses they resolve to."""

_HOSTS = (
    # Plain IPv4
    *("127.0.0.1", "127.0.0.2", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1"),
    *("192.168.0.1", "100.64.0.1", "169.254.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1"),
    *("198.51.100.1", "203.0.113.1", "192.88.99.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
    # Decimal, octal, hexadecimal, mixed, short, padded, overflowing
    *("2130706433", "017700000001", "0x7f000001", "0X7F000001", "0177.0.0.1", "0x7f.0.0.1"),
    *("0x7f.0.0.01", "0177.0x0.0.1", "127.1", "127.0.1", "0x7f.1", "0", "0.0", "0x0", "1"),
    *("00000000127.0.0.1", "0000000000000000000177.0.0.1", "127.000.000.001", "0x000000007f.1"),
    *("4294967296", "6425673729", "18446744073709551617", "383.0.0.1", "127.0.0.257"),
    *("127.0.0.1.1", "0x17f000001", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376"),
    *("3232235777", "167772161"),
    # Dots
    *("127.0.0.1.", "127.0.0.1..", "127..0.0.1", "2130706433.", "127.1.", "localhost.", "."),
    # Digits and dots that are not ASCII, and characters that IDNA drops
    *("\uff11\uff12\uff17.\uff10.\uff10.\uff11", "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460"),
    *("127\u30020\u30020\u30021", "127\uff0e0\uff0e0\uff0e1", "127\uff610\uff610\uff611"),
    *("127\u00ad.0.0.1", "127\u200b.0.0.1", "\U0001d7cf\U0001d7d0\U0001d7d5.1", "\u2488\u2488"),
    *("\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3", "\uff4c\uff4f\uff43alhost"),
    *("\u0967\u0968\u096d.\u0966.\u0966.\u0967", "0\uff587f000001"),
    # Escapes
    *("%31%32%37.0.0.1", "127%2e0%2e0%2e1", "127.0.0.1%00", "127.0.0.1%2f", "%6cocalhost"),
    *("127.0.0.1%09", "%5b::1%5d", "localhost%00.good.example"),
    # IPv6: loopback, any, mapped, compatible, NAT64, 6to4, Teredo, private, link-local, special
    *("[::1]", "[0:0:0:0:0:0:0:1]", "[0000::0001]", "[::0.0.0.1]", "[::]", "[::ffff:127.0.0.1]"),
    *("[::ffff:7f00:1]", "[::ffff:0:0]", "[::FFFF:10.0.0.1]", "[::127.0.0.1]", "[::7f00:1]"),
    *(
        "[::ffff:0:127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1::7f00:1]",
    ),
    *("[2002:7f00:1::1]", "[2002:a9fe:a9fe::]", "[2001:0:7f00:1::]", "[2001::1]", "[fc00::1]"),
    *(
        "[fd00::1]",
        "[fe80::1]",
        "[fe80::1%25eth0]",
        "[fe80::1%eth0]",
        "[fe80::1%251]",
        "[::1%25lo]",
    ),
    *(
        "[fec0::1]",
        "[100::1]",
        "[2001:db8::1]",
        "[3fff::1]",
        "[ff02::1]",
        "[ff05::1:3]",
        "[5f00::1]",
    ),
    *("[::1", "::1", "[[::1]]", "[::1].good.example", "[127.0.0.1]", "[v1.127.0.0.1]"),
    # Metadata services
    *("169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16"),
    *("192.0.0.192", "169.254.42.42", "[fd00:ec2::254]", "[fd20:ce::254]", "[fd00:c1::a9fe:a9fe]"),
    *("[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]"),
    # Names
    *(name for name in NAMES if name != "good.example"),
    *("LOCALHOST", "LocalHost", "Loopback.Example", "loopback.example."),
)

_WITH_TWO_HOSTS = (
    "http://good.example@127.0.0.1:{port}/",
    "http://good.example:80@127.0.0.1:{port}/",
    "http://good.example%40127.0.0.1:{port}/",
    "http://good.example%20@127.0.0.1:{port}/",
    "http://good.example\\@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\@good.example/",
    "http://127.0.0.1:{port}\\.good.example/",
    "http://127.0.0.1:{port}#@good.example/",
    "http://127.0.0.1:{port}?@good.example/",
    "http://127.0.0.1:{port}/@good.example/",
    "http://127.0.0.1:{port};@good.example/",
    "http://good.example#@127.0.0.1:{port}/",
    "http://good.example?@127.0.0.1:{port}/",
    "http://a@127.0.0.1:{port}@good.example/",
    "http://a@good.example@127.0.0.1:{port}/",
    "http://good.example:80:127.0.0.1:{port}/",
    "http://[::1]@good.example@127.0.0.1:{port}/",
    "http://good.example, 127.0.0.1:{port}/",
    "http://good.example /../127.0.0.1:{port}/",
    "http://good.example\uff0f@127.0.0.1:{port}/",
    "http://good.example\uff20127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\u2100good.example/",
)

_WITH_ODD_FRAMES = (
    "http://127.0.0.1",
    "http://127.0.0.1:0/",
    "http://127.0.0.1:80/",
    "http://127.0.0.1:65536/",
    "http://127.0.0.1:+{port}/",
    "http://127.0.0.1:0{port}/",
    "https://127.0.0.1:{port}/",
    "https://localhost:{port}/",
    "HTTP://127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/",
    "http:/127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "http:\\\\127.0.0.1:{port}\\",
    "//127.0.0.1:{port}/",
    "127.0.0.1:{port}",
    "gopher://127.0.0.1:{port}/",
    "file://127.0.0.1/etc/passwd",
    "ftp://127.0.0.1:{port}/",
    "http+unix://127.0.0.1:{port}/",
    " http://127.0.0.1:{port}/",
    "\x01http://127.0.0.1:{port}/",
    "ht\ntp://127.0.0.1:{port}/",
    "http://127.0.0.1\t:{port}/",
    "http://127.0.\n0.1:{port}/",
    "http://good.example\r\nHost: 127.0.0.1:{port}/",
    "http://good.example/\r\n\r\nPOST http://127.0.0.1:{port}/",
    "http://good.example/%0d%0aHost:%20127.0.0.1:{port}",
    "http://user%0d%0aHost:127.0.0.1@127.0.0.1:{port}/",
    "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
    "http://169.254.170.2/v2/credentials/",
    "http://metadata.google.internal/computeMetadata/v1/?recursive=true",
    "http://127.0.0.1:9001/2018-06-01/runtime/invocation/next",
)

HOSTILE = (
    *(f"http://{host}:{{port}}/" for host in _HOSTS),
    *_WITH_TWO_HOSTS,
    *_WITH_ODD_FRAMES,
)
"""``{port}`` stands for the port of a listener on this machine, which must not be reached."""

LANDS_HERE = tuple(
    f"http://{host}:{{port}}/"
    for host in (
        *("127.0.0.1", "0.0.0.0", "2130706433", "0x7f.0.0.1", "017700000001", "127.1", "0"),
        *("127.0.0.1.", "\uff11\uff12\uff17.\uff10.\uff10.\uff11", "a@127.0.0.1", "localhost"),
        *("loopback.example", "bad-then-good.example"),
    )
)
"""URLs for which a sender without a guard does connect to this machine."""
