"""`lipcert serve`: the API in this process, the dispatcher in another, which has the forkserver.

The dispatcher's standard input is its lifeline: when this process ends, however it ends, the
dispatcher ends its children and itself. When the dispatcher dies, it is started again. So it is
with the deliverer, where webhooks are on.
"""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime

import uvicorn

from service import sandbox
from service.app import create_app
from service.blobs import Blobs
from service.environment import without_secrets
from service.logs import write_json_lines
from service.settings import Settings, from_environment
from service.signing_keys import keyid_of, read_private_key, read_trusted_keys
from service.store import keys
from service.store.address import DatabaseUrl
from service.store.database import UNAVAILABLE, Database
from service.store.engine import open_database
from service.store.migrate import migrate
from verifier.errors import InvalidRequest

RESTART_S = 0.5  #: before a dispatcher that died is started again
STOP_S = 10.0

log = logging.getLogger("lipcert.serve")


def serve(settings: Settings) -> int:
    """Serve until interrupted; the process's exit code.

    Raises:
        InvalidRequest: the address is beyond loopback, and nothing would protect it.
    """
    write_json_lines()
    require_sandbox(settings, sandbox.available())
    require_published_key(settings)
    prepare(settings)
    with listen(settings) as address:
        names = ["dispatcher", "deliverer"] if settings.webhooks else ["dispatcher"]
        keepers = [Keeper(settings, name) for name in names]
        for keeper in keepers:
            keeper.start()
        try:
            serve_api(settings, address)
        finally:
            for keeper in keepers:
                keeper.stop()
    return 0


def prepare(settings: Settings) -> None:
    """Make the data directory ready, and refuse an address that is not safe."""
    with ready_database(settings) as database, database.read() as connection:
        require_safe_bind(settings, has_keys=keys.exist(connection))
    Blobs(settings.data).remove_stale()


@contextmanager
def ready_database(settings: Settings) -> Generator[Database]:
    """The database at the newest schema, and a data directory, which is made where there is none.

    Raises:
        InvalidRequest: the database does not answer.
        RequestRefused: its driver is not installed.
    """
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = open_database(settings.database)
    try:
        _migrate(database, settings)
        yield database
    finally:
        database.close()


def _migrate(database: Database, settings: Settings) -> None:
    try:
        migrate(database, settings.data / "migrate.lock")
    except UNAVAILABLE as error:
        place = settings.database
        said = str(getattr(error, "orig", None) or error)
        raise InvalidRequest(
            f"the database {place} does not answer: "
            f"{place.conceal(said) if isinstance(place, DatabaseUrl) else said}",
            fix="start it, and check its URL, user and password",
            pointer="/database_url",
        ) from None  # the driver's error may hold what it was told


def listen(settings: Settings) -> socket.socket:
    """The socket to serve on.

    Raises:
        InvalidRequest: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        made = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        raise InvalidRequest(
            f"{settings.host}:{settings.port} cannot be bound: {error.strerror}",
            fix="end what listens there, or choose another --port",
            pointer="/port",
        ) from error
    # Its connections have this, too. asyncio sets it only where a socket names its protocol,
    # and without it the second write of an answer waits 40 ms for the first one's receipt.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def serve_api(settings: Settings, address: socket.socket) -> None:
    """Serve HTTP alone, until interrupted or terminated."""
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings),
            log_level="warning",
            log_config=None,  # ours
            access_log=False,
            timeout_graceful_shutdown=3,
            server_header=False,
        )
    )
    # uvicorn raises the signal again after its shutdown: then it has to be an ordinary end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        asyncio.run(_run(server, settings, address))


def require_safe_bind(settings: Settings, *, has_keys: bool) -> None:
    """Refuse to serve strangers without keys.

    Raises:
        InvalidRequest: the address is beyond loopback, without keys or `--insecure-no-auth`.
    """
    if not settings.is_loopback and not has_keys and not settings.insecure_no_auth:
        raise InvalidRequest(
            f"host {settings.host!r} is reachable from other machines, and there are no keys",
            fix="make one with `lipcert api-keys new`, bind 127.0.0.1, or give "
            "--insecure-no-auth in full",
            pointer="/host",
        )


def require_published_key(settings: Settings) -> None:
    """Refuse to sign what nobody could verify.

    Raises:
        InvalidRequest: a key signs, and its public key is not published, or is not current.
    """
    if settings.signing_key is None:
        return
    keyid = keyid_of(read_private_key(settings.signing_key).public_key())
    known = () if settings.trusted_keys is None else read_trusted_keys(settings.trusted_keys)
    states = [key.state(datetime.now(UTC)) for key in known if key.keyid == keyid]
    if "current" not in states:
        raise InvalidRequest(
            f"key {keyid} signs, and is {states[0] if states else 'not'} in the published key set",
            fix="give --trusted-keys with a key set in which it is current",
            pointer="/trusted_keys",
        )


def require_sandbox(settings: Settings, available: str) -> None:
    """Refuse to read strangers' models in less than a full sandbox, where that is wanted.

    Raises:
        InvalidRequest: it is wanted, or the address is beyond loopback, and a layer is missing.
    """
    is_wanted = settings.require_sandbox
    if (not settings.is_loopback if is_wanted is None else is_wanted) and available != "full":
        raise InvalidRequest(
            f"the sandbox of this machine is {available}, and a full one is required",
            fix="run on Linux 5.13 or newer that allows Landlock and seccomp, or give "
            "--require-sandbox any",
            pointer="/require_sandbox",
        )


class Keeper:
    """Keeps a dispatcher or deliverer running."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._process: subprocess.Popen[str] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def start(self) -> None:
        """Start it."""
        self._thread.start()

    def stop(self) -> None:
        """Close its lifeline and wait; kill it when it does not follow."""
        self._stopping.set()
        for end in (_close_lifeline, _kill):
            # One that is being started at this moment `_keep` ends by itself.
            if self._process is not None:
                end(self._process)
            self._thread.join(STOP_S)
            if not self._thread.is_alive():
                return

    def _keep(self) -> None:
        while not self._stopping.is_set():
            try:
                self._process = process = self._started()
                if self._stopping.is_set():  # since `stop` looked for a process
                    _close_lifeline(process)
                code: int | str = process.wait()
                _close_lifeline(process)
            except OSError as error:
                code = str(error)  # the machine has no room for a process now
            if not self._stopping.is_set():
                log.error("the %s ended with code %s; it is started again", self._name, code)
            self._stopping.wait(RESTART_S)

    def _started(self) -> subprocess.Popen[str]:
        # -c, not -m: a child of the forkserver imports the main module again if it has a name.
        process = subprocess.Popen(  # noqa: S603 - one of two names, both ours
            [sys.executable, "-P", "-c", f"from service.{self._name} import main; main()"],
            env=without_secrets(os.environ),
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,  # an interrupt on the terminal is the API's to handle
        )
        assert process.stdin is not None  # noqa: S101 - it was asked for
        try:
            with suppress(BrokenPipeError):  # it died first: whoever waits for it hears that
                process.stdin.write(self._settings.to_json() + "\n")
                process.stdin.flush()
        except OSError:
            process.kill()
            process.wait()
            _close_lifeline(process)
            raise
        return process


def _close_lifeline(process: subprocess.Popen[str]) -> None:
    """Close what a process of ours reads for as long as it shall live."""
    assert process.stdin is not None  # noqa: S101 - it was asked for
    with suppress(BrokenPipeError):  # what it did not read is lost with it
        process.stdin.close()


def _kill(process: subprocess.Popen[str]) -> None:
    process.kill()


async def _run(server: uvicorn.Server, settings: Settings, address: socket.socket) -> None:
    """Serve, and say so once the socket listens."""

    async def announce() -> None:
        while not server.started:
            await asyncio.sleep(0.01)
        where = f"http://{settings.host}:{address.getsockname()[1]}"
        if settings.public_url is not None:
            where += f", reached at {settings.public_url}"
        store = "" if settings.database_url is None else f"database {settings.database_url}, "
        sys.stderr.write(
            f"lipcert serves {where}, data in {settings.data}, {store}"
            f"sandbox {sandbox.available()}\n"
        )

    task = asyncio.create_task(announce())
    await server.serve(sockets=[address])
    task.cancel()


def main() -> None:
    """Serve the API alone, as its container does; settings from the environment."""
    write_json_lines()
    insecure = "--insecure-no-auth" in sys.argv
    settings = replace(from_environment(os.environ), insecure_no_auth=insecure)
    prepare(settings)
    with listen(settings) as address:
        serve_api(settings, address)


if __name__ == "__main__":
    main()
