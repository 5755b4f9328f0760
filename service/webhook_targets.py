"""Where webhooks may go: over https to public addresses, and nowhere else.

    text --read_target--> Target --addresses_of--> addresses that may be connected to

- A URL is read by one strict grammar, whatever it leaves out is refused: user names, fragments,
  other characters than ASCII, other spellings of addresses (0x7f.1, 2130706433, 127.1).
- A name is resolved once. If *any* of its addresses is not public, it is refused: a server chooses
  which one is used. Who sends connects to one of these addresses and resolves nothing again, so a
  name that changes its mind (DNS rebinding) gains nothing.
- Only the development switch allows http, and then to loopback alone.

Both steps are taken when a webhook is made and again before every try.
Source of the tables: IANA's registries of special-purpose IPv4 and IPv6 addresses.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Literal, TypeAlias

from service.settings import Settings

RESOLVE_S = 5.0
MAX_URL = 2000

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
Address: TypeAlias = IPv4Address | IPv6Address


class TargetRefused(Exception):
    """A webhook must not go there; the text says why, and names no address of the inside."""


class Unresolved(TargetRefused):
    """Nobody knows an address of the host, at least not now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A URL in parts."""

    scheme: Literal["http", "https"]
    host: str  #: in lower case; an IPv6 address without brackets
    port: int
    path: str  #: with the query

    @property
    def origin(self) -> str:
        """The URL without its path and query, which may hold secrets."""
        return f"{self.scheme}://{self.authority}"

    @property
    def authority(self) -> str:
        """What the Host header says."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        usual = 443 if self.scheme == "https" else 80
        return name if self.port == usual else f"{name}:{self.port}"

    @property
    def url(self) -> str:
        """The URL, spelled the one way."""
        return self.origin + self.path


_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[0-9a-z.-]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>[/?][0-9a-z\-._~!$&'()*+,;=:@%/?]*)?",
    re.IGNORECASE | re.ASCII,
)
_LABEL = re.compile(r"[0-9a-z]([0-9a-z-]{0,61}[0-9a-z])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


def read_target(text: str, settings: Settings) -> Target:
    """The target that a URL states, where the operator allows its scheme, port and host.

    Raises:
        TargetRefused: it is not allowed, or not a URL of the grammar.
    """
    found = _URL.fullmatch(text) if len(text) <= MAX_URL else None
    if found is None:
        raise TargetRefused(
            "it is not an absolute URL of plain ASCII without user name and fragment"
        )
    is_secure = found["scheme"].lower() == "https"
    path, port = found["path"] or "/", int(found["port"] or (443 if is_secure else 80))
    if not 0 < port < 65536:
        raise TargetRefused(f"there is no port {port}")
    target = Target(
        scheme="https" if is_secure else "http",
        host=_host(found["host"].lower(), settings),
        port=port,
        path=path if path.startswith("/") else f"/{path}",
    )
    _require_allowed(target, settings)
    return target


async def addresses_of(target: Target, resolve: Resolve) -> tuple[str, ...]:
    """The addresses that a target may be reached at, all of them allowed.

    Raises:
        TargetRefused: one of them is not.
        Unresolved: there are none.
    """
    literal = _literal(target.host)
    if literal is None:
        try:
            found = await asyncio.wait_for(resolve(target.host, target.port), RESOLVE_S)
        except (OSError, TimeoutError) as error:
            raise Unresolved(f"the name {target.host!r} has no address") from error
    else:
        found = [str(literal)]
    if not found:
        raise Unresolved(f"the name {target.host!r} has no address")
    for text in found:
        _require_reachable(target, ip_address(text))
    return tuple(found)


async def system_addresses(host: str, port: int) -> Sequence[str]:
    """What this machine's resolver says."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


def why_not_public(address: Address) -> str | None:
    """What an address is instead of public; None where it is public."""
    if isinstance(address, IPv4Address):
        return next((why for network, why in _NOT_PUBLIC_4 if address in network), None)
    if address in _NAT64:
        return why_not_public(IPv4Address(int(address) & 0xFFFFFFFF))
    if address not in _GLOBAL_6:
        return next((why for network, why in _OUTSIDE_6 if address in network), "reserved")
    return next((why for network, why in _NOT_PUBLIC_6 if address in network), None)


# --- parts ---------------------------------------------------------------------------------------


def _host(text: str, settings: Settings) -> str:
    """A host spelled the one way: an address, or a name that cannot be read as one."""
    if text.startswith("["):
        address = _literal(text[1:-1])
        if address is None:
            raise TargetRefused("its host is no IPv6 address")
        return str(address)
    labels = text.split(".")
    # A last label that is a number makes resolvers read the host as an address, however spelled.
    if _NUMBER.fullmatch(labels[-1]):
        if _literal(text) is None:
            raise TargetRefused("its host is an unusual spelling of an address")
        return text
    is_name = len(text) <= 253 and all(_LABEL.fullmatch(label) for label in labels)
    if not is_name:
        raise TargetRefused("its host is no name; write other scripts in their xn-- form")
    if len(labels) < 2 and not (settings.webhook_loopback and text == "localhost"):
        raise TargetRefused("its host is no full name")
    return text


def _literal(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _require_allowed(target: Target, settings: Settings) -> None:
    if target.scheme == "http":
        if not settings.webhook_loopback:
            raise TargetRefused("it is not https")
        return  # to loopback alone, on any port: see _require_reachable
    if target.port not in settings.webhook_ports:
        allowed = ", ".join(map(str, settings.webhook_ports))
        raise TargetRefused(f"port {target.port} is not allowed; {allowed} is")
    names = settings.webhook_hosts
    # .example.org stands for the names below example.org.
    is_listed = any(
        target.host.endswith(name) if name.startswith(".") else target.host == name
        for name in names
    )
    if names and not is_listed:
        raise TargetRefused(f"host {target.host!r} is not one that the operator allows")


def _require_reachable(target: Target, address: Address) -> None:
    if target.scheme == "http":
        if not address.is_loopback:
            raise TargetRefused("it is not https, and its host is not this machine")
        return
    why = why_not_public(address)
    if why is not None:
        raise TargetRefused(f"host {target.host!r} has an address that is {why}, not public")


_NAT64 = IPv6Network("64:ff9b::/96")
_GLOBAL_6 = IPv6Network("2000::/3")  #: all that is given out for the world

_NOT_PUBLIC_4 = tuple(
    (IPv4Network(network), why)
    for network, why in (
        ("0.0.0.0/32", "unspecified"),
        ("0.0.0.0/8", "reserved"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by a carrier's customers"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "for documentation"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_NOT_PUBLIC_6 = tuple(
    (IPv6Network(network), why)
    for network, why in (
        ("2001::/32", "an IPv4 address within Teredo"),
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "an IPv4 address within 6to4"),
        ("3fff::/20", "for documentation"),
    )
)
_OUTSIDE_6 = tuple(
    (IPv6Network(network), why)
    for network, why in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::ffff:0:0/96", "an IPv4 address within IPv6"),
        ("64:ff9b:1::/48", "private"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
    )
)
