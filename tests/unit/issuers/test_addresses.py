"""Where a request may go, and where it may not."""

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from machinebot.errors import Invalid
from machinebot.issuers.addresses import Resolver, https_url, is_refused


@pytest.mark.parametrize(
    "text",
    [
        "https://issuer.example.test",
        "https://issuer.example.test/",
        "https://issuer.example.test:8443/realms/ci",
        "https://issuer.example.test:65535",
        "https://ISSUER.example.test/Path",
        "https://issuer.example.test/keys?p=policy&x=%20",
        "https://xn--bcher-kva.example.test",
        "https://kubernetes.default.svc.cluster.local",
        "https://1.example.test",
    ],
)
def test_addresses_that_are_called_as_they_are(text: str) -> None:
    assert str(https_url(text)).lower() == text.lower()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("http://issuer.example.test", id="http"),
        pytest.param("ftp://issuer.example.test", id="another scheme"),
        pytest.param("//issuer.example.test", id="no scheme"),
        pytest.param("issuer.example.test", id="a host alone"),
        pytest.param("file:///etc/passwd", id="a file"),
        pytest.param("https://localhost", id="a name without a dot"),
        pytest.param("https://localhost/", id="a name without a dot, and a path"),
        pytest.param("https://127.0.0.1", id="an IPv4 address"),
        pytest.param("https://127.1", id="a short one"),
        pytest.param("https://127.0.0.1.", id="one with a dot behind it"),
        pytest.param("https://2130706433", id="one as a number"),
        pytest.param("https://0x7f000001", id="one in hexadecimal"),
        pytest.param("https://0x7f.0.0.1", id="one partly in hexadecimal"),
        pytest.param("https://0177.0.0.1", id="one in octal"),
        pytest.param("https://1.2.3.0x4", id="one with a hexadecimal end"),
        pytest.param("https://[::1]", id="an IPv6 address"),
        pytest.param("https://[::ffff:127.0.0.1]/", id="one that holds an IPv4 address"),
        pytest.param("https://user@issuer.example.test", id="a user"),
        pytest.param("https://issuer.example.test@evil.example.test", id="a host as user"),
        pytest.param("https://issuer.example.test:443@evil.example.test", id="a host and port as user"),
        pytest.param("https://issuer.example.test\\@evil.example.test", id="a backslash"),
        pytest.param("https://issuer.example.test/\\x", id="a backslash in the path"),
        pytest.param("https://issuer.example.test#", id="a fragment"),
        pytest.param("https://issuer.example.test/#x", id="a fragment behind a path"),
        pytest.param("https://issuer.example.test?x", id="a query without a path"),
        pytest.param("https://issuer.example.test:", id="a port that is empty"),
        pytest.param("https://issuer.example.test:0", id="port 0"),
        pytest.param("https://issuer.example.test:65536", id="a port too high"),
        pytest.param("https://issuer.example.test:https", id="a port that is a word"),
        pytest.param("https://issuer..example.test", id="two dots"),
        pytest.param("https://.example.test", id="a dot first"),
        pytest.param("https://-issuer.example.test", id="a hyphen first"),
        pytest.param("https://issuer.example.test.", id="a dot last"),
        pytest.param("https://issuer_1.example.test", id="an underscore"),
        pytest.param("https://issuer.exa mple.test", id="a blank"),
        pytest.param("https://issuer.example.test/a b", id="a blank in the path"),
        pytest.param("https://issuer.example.test/\r\nHost: x", id="a line break"),
        pytest.param("https://issuer.example.test\n", id="a line break at the end"),
        pytest.param("https://issuer.example.test/\x00", id="a zero byte"),
        pytest.param("https://issuer.example.test/ä", id="no ASCII"),
        pytest.param("https://issuer\u3002example.test", id="a dot of another alphabet"),
        pytest.param("https://①②⑦.0.0.test", id="digits of another alphabet"),
        pytest.param("https://issuer.example.test/" + "a" * 2048, id="too long"),
    ],
)
def test_addresses_that_are_not_called(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        https_url(text)
    assert caught.value.reason == "IssuerRefused"


@pytest.mark.parametrize(
    ("address", "refused"),
    [
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("::1", True),
        ("0.0.0.0", True),  # noqa: S104 - refused
        ("::", True),
        ("169.254.169.254", True),
        ("169.254.0.1", True),
        ("fe80::1", True),
        ("fe80::1%2", True),
        ("224.0.0.1", True),
        ("239.255.255.255", True),
        ("ff02::1", True),
        ("255.255.255.255", True),
        ("100.100.100.200", True),
        ("168.63.129.16", True),
        ("192.0.0.192", True),
        ("fd00:ec2::254", True),
        ("fd20:ce::254", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:169.254.169.254", True),
        ("64:ff9b::7f00:1", True),
        ("64:ff9b::a9fe:a9fe", True),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::808:808", False),
        ("203.0.113.7", False),
        ("2001:db8::1", False),
    ],
)
def test_addresses_of_this_machine_and_of_metadata_are_refused(address: str, refused: bool) -> None:
    assert is_refused(address) is refused


def answering(*addresses: str) -> Callable[..., list[Any]]:
    """`getaddrinfo` with that answer."""

    def getaddrinfo(_host: str, port: int, *_flags: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    return getaddrinfo


async def test_what_a_name_leads_to_is_what_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", answering("10.0.0.1", "2001:db8::1"))
    resolver = Resolver({}, 4)
    found = await resolver.resolve("issuer.example.test", 8443)
    await resolver.close()
    assert [(each["host"], each["port"], each["family"]) for each in found] == [
        ("10.0.0.1", 8443, socket.AF_INET),
        ("2001:db8::1", 8443, socket.AF_INET6),
    ]


@pytest.mark.parametrize("addresses", [("127.0.0.1",), ("10.0.0.1", "::1"), ("169.254.169.254", "10.0.0.1")])
async def test_name_that_leads_to_this_machine_is_refused_whole(
    monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...]
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", answering(*addresses))
    resolver = Resolver({}, 4)
    with pytest.raises(Invalid, match="IssuerRefused"):
        await resolver.resolve("issuer.example.test", 443)
    await resolver.close()


async def test_name_of_the_settings_is_not_looked_up() -> None:
    resolver = Resolver({"issuer.example.test": ("127.0.0.1", 4711)}, 4)
    (found,) = await resolver.resolve("issuer.example.test", 443)
    await resolver.close()
    assert (found["host"], found["port"]) == ("127.0.0.1", 4711)


async def test_name_that_leads_nowhere() -> None:
    resolver = Resolver({}, 4)
    with pytest.raises(OSError, match=r".+"):
        await resolver.resolve("nobody.invalid", 443)
    await resolver.close()


async def test_a_name_whose_look_up_hangs_holds_one_thread_however_often_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told, hanging = threading.Event(), []

    def getaddrinfo(host: str, port: int, *_flags: object) -> list[Any]:
        if host == "hangs.example.test":
            hanging.append(host)
            assert told.wait(60)
        return answering("10.0.0.1")(host, port)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    resolver = Resolver({}, 2)
    asked = [asyncio.ensure_future(resolver.resolve("hangs.example.test", 443)) for _ in range(8)]
    await asyncio.sleep(0)
    for each in asked[1:]:
        each.cancel()
    (found,) = await resolver.resolve("issuer.example.test", 443)
    assert found["host"] == "10.0.0.1"
    told.set()
    assert [each["host"] for each in await asked[0]] == ["10.0.0.1"]
    assert hanging == ["hangs.example.test"]
    await resolver.resolve("hangs.example.test", 443)
    assert len(hanging) == 2, "what was looked up once is looked up anew"
    await resolver.close()
