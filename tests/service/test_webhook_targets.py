"""Where webhooks may not go: every spelling, every class of address."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.settings import Settings
from service.webhook_targets import (
    TargetRefused,
    Unresolved,
    addresses_of,
    read_target,
    why_not_public,
)

USUAL = Settings(webhooks=True)
DEVELOPING = replace(USUAL, webhook_loopback=True)


def vetted(url: str, *answers: str, settings: Settings = USUAL) -> tuple[str, ...]:
    """The addresses of a URL whose name has these."""

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return answers

    return asyncio.run(addresses_of(read_target(url, settings), resolve))


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://example.org", "https://example.org/"),
        ("HTTPS://Example.ORG:443/a?b=%20c", "https://example.org/a?b=%20c"),
        ("https://example.org?b", "https://example.org/?b"),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"),
        ("https://[2606:4700:0:0::1]/", "https://[2606:4700::1]/"),
    ],
)
def test_a_url_is_spelled_one_way(url: str, kept: str) -> None:
    assert read_target(url, USUAL).url == kept


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://example.org:0/",
        "https://example.org:65536/",
        "example.org/hook",
        "//example.org/",
        "http://example.org/",
        "ftp://example.org/",
        "file:///etc/passwd",
        "https:///hook",
        "https://user@example.org/",
        "https://user:secret@example.org/",
        "https://example.org#@127.0.0.1/",
        "https://example.org\\@127.0.0.1/",
        "https://example.org/#fragment",
        "https://example.org/a b",
        "https://example.org/\n",
        "https://example.org\t/",
        " https://example.org/",
        "https://example.org:8443/",
        "https://example.org:22/",
        "https://example.org:0443000/",
        "https://example.org:/",
        "https://localhost/",
        "https://metadata/",
        "https://bücher.example/",
        "https://\uff11\uff12\uff17.0.0.1/",
        "https://127.0.0.1\u3002/",
        "https://%31%32%37.0.0.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://0x7f000001/",
        "https://017700000001/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://127.0.0.1./",
        "https://example.org./",
        "https://example.0x/",
        "https://1.2.3.4.5/",
        "https://[fe80::1%25eth0]/",
        "https://[::1/",
        "https://[v1.x]/",
        "https://-example.org/",
        "https://ex_ample.org/",
        "https://" + "a" * 64 + ".org/",
        "https://example.org/" + "a" * 2000,
    ],
)
def test_what_the_grammar_leaves_out_is_refused(url: str) -> None:
    with pytest.raises(TargetRefused):
        read_target(url, USUAL)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # noqa: S104 - not bound here
        "0.1.2.3",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:0:8.8.8.8",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:0:7f00:1::",
        "2001:2::1",
        "2001:20::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:808:808::1",
        "3fff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    assert why_not_public(ip_address(address)) is not None
    with pytest.raises(TargetRefused, match="not public"):
        vetted(f"https://{host}/")
    for answers in ([address], ["8.8.8.8", address], [address, "2606:4700::1"]):
        with pytest.raises(TargetRefused, match="not public") as refused:
            vetted("https://example.org/", *answers)
        assert address not in str(refused.value)  # what names of the inside lead to is not told


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "100.63.255.255",
        "172.32.0.1",
        "192.0.1.1",
        "223.255.255.255",
        "2606:4700::1",
        "2001:4860:4860::8888",
        "2a00::1",
        "64:ff9b::808:808",
    ],
)
def test_a_public_address_is_allowed(address: str) -> None:
    assert vetted("https://example.org/", address) == (address,)


def test_a_scope_does_not_hide_a_link_local_address() -> None:
    with pytest.raises(TargetRefused, match="link-local"):
        vetted("https://example.org/", "fe80::1%eth0")


def test_a_name_without_an_address_is_told_apart() -> None:
    async def nobody(_host: str, _port: int) -> Sequence[str]:
        raise OSError("no such name")

    with pytest.raises(Unresolved):
        vetted("https://example.org/")
    with pytest.raises(Unresolved):
        asyncio.run(addresses_of(read_target("https://example.org/", USUAL), nobody))


def test_the_operator_allows_ports_and_hosts() -> None:
    own = replace(USUAL, webhook_ports=(443, 8443), webhook_hosts=("a.example", ".b.example"))
    for url in ("https://a.example/", "https://x.b.example:8443/", "https://x.y.b.example/"):
        read_target(url, own)
    for url in ("https://b.example/", "https://a.example.c/", "https://xb.example/"):
        with pytest.raises(TargetRefused, match="operator"):
            read_target(url, own)
    with pytest.raises(TargetRefused, match="8444"):
        read_target("https://a.example:8444/", own)


@given(
    url=st.builds(
        "{}://{}{}{}".format,
        st.sampled_from(["http", "https", "HTTPS"]),
        st.sampled_from(["8.8.8.8", "a.example", "A-b.c.example", "[2606:4700::1]", "1.2"]),
        st.sampled_from(["", ":443", ":80", ":08", ":9999"]),
        st.from_regex(r"([/?][0-9a-z\-._~!$&'()*+,;=:@%/?]*)?", fullmatch=True),
    )
)
def test_whoever_sends_reads_a_url_as_the_guard_does(url: str) -> None:
    try:
        target = read_target(url, DEVELOPING)
    except TargetRefused:
        return
    assert read_target(target.url, DEVELOPING) == target
    sent = httpx.URL(target.url)
    assert (sent.scheme, sent.host) == (target.scheme, target.host)
    assert (sent.port or {"http": 80, "https": 443}[target.scheme]) == target.port
    assert sent.userinfo == b""


def test_the_development_switch_opens_this_machine_alone() -> None:
    assert vetted("http://127.0.0.1:9/", settings=DEVELOPING) == ("127.0.0.1",)
    assert vetted("http://[::1]:9/", settings=DEVELOPING) == ("::1",)
    assert vetted("http://localhost:9/", "::1", settings=DEVELOPING) == ("::1",)
    for answers in (["8.8.8.8"], ["127.0.0.1", "10.0.0.1"], ["169.254.169.254"]):
        with pytest.raises(TargetRefused, match="not this machine"):
            vetted("http://example.org/", *answers, settings=DEVELOPING)
    with pytest.raises(TargetRefused, match="not public"):
        vetted("https://127.0.0.1/", settings=DEVELOPING)
