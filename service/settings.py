"""What the operator decides: addresses, places and limits. Flags win over the environment."""

import dataclasses
import ipaddress
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.limits import Limits, parse_limits
from service.links import parse_public_url
from service.rates import Rates, parse_rates
from service.store.address import DatabaseUrl
from verifier.errors import InvalidRequest

TENANT = "default"  #: the one tenant of an installation without keys

MEBIBYTE = 2**20

#: The variables of OpenTelemetry that say where traces go; without one there are none.
TELEMETRY_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryPoints:
    """What the children call, as `module:function`. Only a program sets these, never a user."""

    verify: str = "verifier.verify:verify"
    radius: str = "verifier.radius:radii"
    inspect: str = "verifier.verify:inspect"
    check: str = "verifier.checker:check"
    check_radius: str = "verifier.checker:check_radius"
    preload: tuple[str, ...] = (
        "torch",
        "onnxruntime",
        "verifier.verify",
        "verifier.radius",
        # What is read is imported there when a file is worth it, which a fork is too late for.
        "verifier.onnx_import.build",
        "verifier.onnx_import.differential",
        "verifier.onnx_import.model",
        "verifier.onnx_import.runtime",
    )  #: modules, imported before any fork: children may not read our files
    folders: tuple[str, ...] = ()  #: that children may write in; the verifier's need none


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every knob of the service, with the defaults of one machine."""

    host: str = "127.0.0.1"
    port: int = 8321
    data: Path = field(default_factory=lambda: default_data_directory())
    database_url: DatabaseUrl | None = None  #: of a PostgreSQL server; None: SQLite in `data`
    database_password_file: Path | None = None  #: for the URL, where it has no password
    insecure_no_auth: bool = False  #: a bind beyond loopback, although there are no keys
    signing_key: Path | None = None  #: the private key that signs certificates
    trusted_keys: Path | None = None  #: the public keys that are published, its own among them
    require_sandbox: bool | None = None  #: a full one, or do not start; None: beyond loopback
    allowed_hosts: tuple[str, ...] = ()  #: beyond loopback: Host headers to accept; empty: all
    public_url: str | None = None  #: where others reach the service; links are paths without it

    max_model_bytes: int = 512 * MEBIBYTE
    max_json_bytes: int = 16 * MEBIBYTE
    max_certificate_bytes: int = 128 * MEBIBYTE
    max_checkpoint_bytes: int = 48 * MEBIBYTE
    checkpoint_days: float = 7.0  #: that one is kept after its job's end; inf: for ever
    max_queued: int = 100_000  #: of every tenant together
    upload_idle_s: float = 30.0

    limits: Limits = field(default_factory=Limits)  #: of tenants that have none of their own
    rates: Rates = field(default_factory=Rates)  #: of API keys

    slots: int = field(default_factory=lambda: os.cpu_count() or 1)  #: attempts at one time
    threads: int = 1  #: threads of each attempt's linear algebra
    memory_bytes: int = field(default_factory=lambda: default_memory())  #: of one child
    budget_grace_s: float = 5.0  #: seconds after its budget when an attempt is killed
    inspect_s: float = 120.0  #: seconds that reading a model may take
    check_s: float = 120.0  #: seconds that one check may take

    telemetry: Mapping[str, str] = field(default_factory=dict[str, str])  #: OTEL_* variables

    lease_s: float = 30.0
    heartbeat_s: float = 5.0
    sweep_s: float = 1.0
    max_attempts: int = 3

    webhooks: bool = False  #: whether jobs may be told to others: the one way out of this machine
    webhook_loopback: bool = False  #: development: http to this machine as well
    webhook_ports: tuple[int, ...] = (443,)  #: that https may go to
    webhook_hosts: tuple[str, ...] = ()  #: to tell: names, or .example.org; empty: all
    webhook_timeout_s: float = 10.0  #: seconds that one try may take, from end to end
    max_webhooks: int = 20  #: of one tenant

    entry_points: EntryPoints = field(default_factory=EntryPoints)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def database(self) -> Path | DatabaseUrl:
        """The SQLite file, or where the server is, with the password.

        Raises:
            InvalidRequest: the password's file cannot be read.
        """
        url, file = self.database_url, self.database_password_file
        if url is None:
            return self.data / "lipcert.db"
        if file is None or url.password is not None:
            return url
        try:
            return url.with_password(file.read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(
                f"the database's password cannot be read from {file}",
                fix="name a file that holds nothing else",
                pointer="/database_password_file",
            ) from error

    @property
    def webhook_key(self) -> Path:
        """The file of the key that webhooks' secrets are sealed with."""
        return self.data / "webhook.key"

    def to_json(self) -> str:
        """One line that `from_json` reads: how the settings reach the dispatcher."""
        return json.dumps(dataclasses.asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> "Settings":
        """The settings that `to_json` wrote."""
        members: dict[str, Any] = json.loads(text)  # Any: what to_json wrote
        points: dict[str, Any] = members.pop("entry_points")
        points |= {name: tuple(points[name]) for name in ("preload", "folders")}
        for name in ("data", "database_password_file", "signing_key", "trusted_keys"):
            members[name] = None if members[name] is None else Path(members[name])
        if members["database_url"] is not None:
            members["database_url"] = DatabaseUrl(**members["database_url"])
        members["limits"] = Limits(**members["limits"])
        members["rates"] = Rates(**members["rates"])
        for name in ("allowed_hosts", "webhook_hosts", "webhook_ports"):
            members[name] = tuple(members[name])
        return cls(**members, entry_points=EntryPoints(**points))


def from_environment(environment: Mapping[str, str]) -> Settings:
    """The defaults, with what LIPCERT_* variables say instead."""
    said: dict[str, Any] = {}  # Any: each field has its own type
    for name, read in FROM_ENVIRONMENT.items():
        text = environment.get(f"LIPCERT_{name.upper()}")
        if text:
            said[name] = _read(name, text, read)
    return Settings(**said, telemetry=variables_of(environment))


def variables_of(environment: Mapping[str, str]) -> dict[str, str]:
    """What the environment says about telemetry; empty where it asks for none."""
    is_off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if is_off or not any(environment.get(name) for name in TELEMETRY_ENDPOINTS):
        return {}
    return {name: value for name, value in environment.items() if name.startswith("OTEL_")}


def _read(name: str, text: str, read: Callable[[str], object]) -> object:
    """What a variable says.

    Raises:
        InvalidRequest: it says nothing that can be read.
    """
    try:
        return read(text)
    except (KeyError, ValueError) as error:
        raise InvalidRequest(
            f"LIPCERT_{name.upper()} is {text[:100]!r}",
            fix=FIXES.get(read, "give a number, or numbers with commas"),
            pointer=f"/{name}",
        ) from error


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(name) for name in _names(text))


def _days(text: str) -> float:
    days = float(text)
    if not 0 <= days:  # nor a nan
        raise ValueError("no length of time")
    return days


def _switch(text: str) -> bool:
    return {"on": True, "off": False}[text]


def default_data_directory() -> Path:
    """`$XDG_DATA_HOME/lipcert`, where the specification of XDG puts it."""
    home = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(home) / "lipcert"


def default_memory() -> int:
    """A child's share of three quarters of the machine, but at least 2 GiB."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(2 * 2**30, total * 3 // 4 // (os.cpu_count() or 1))


#: What to write instead, by how a text is read.
FIXES: Mapping[Callable[[str], object], str] = {
    _switch: "say on or off",
    parse_public_url: "give https://HOST or https://HOST/PATH",
}

#: The fields that LIPCERT_<NAME> sets, and how its text is read.
FROM_ENVIRONMENT: Mapping[str, Callable[[str], object]] = {
    "allowed_hosts": _names,
    "checkpoint_days": _days,
    "data": Path,
    "database_password_file": Path,
    "database_url": DatabaseUrl.parse,
    "host": str,
    "limits": parse_limits,
    "memory_bytes": int,
    "port": int,
    "public_url": parse_public_url,
    "rates": parse_rates,
    "signing_key": Path,
    "slots": int,
    "trusted_keys": Path,
    "webhook_hosts": _names,
    "webhook_loopback": _switch,
    "webhook_ports": _numbers,
    "webhooks": _switch,
}
