"""One attempt of one job, in a child process: what runs between the fork and the exit.

The child reads the model from a read-only path and speaks to its supervisor over one pipe, in
frames: a letter and a payload, JSON or a certificate's text. Nothing is pickled on that way, and
the supervisor believes none of it. The child ends when its supervisor does, however that ended.

Import-light on purpose: every child imports this module again.
"""

import hashlib
import importlib
import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, TypeAlias

from service import lifeline, sandbox
from verifier.errors import InvalidRequest, LipcertError, ResourceExhausted

Frame: TypeAlias = Literal[b"S", b"P", b"C", b"B", b"R", b"M", b"E", b"H"]

STARTED, PROGRESS, CERTIFICATE, RING, RESULT, SUMMARY, ERROR, HELLO = (
    b"S",  # the work begins, in this sandbox
    b"P",  # progress, JSON
    b"C",  # a better certificate, its JSON text
    b"B",  # a larger ball: which center's, and its certificate's JSON text
    b"R",  # the work is done; the last certificate, its JSON text, or nothing
    b"M",  # a model's summary, JSON
    b"E",  # why there is no result, JSON
    b"H",  # the answer to a probe, JSON
)

MAX_FILE_BYTES = 64 * 2**20
PLACE_BYTES = 4  #: of a center's number, before its certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a child has to do, and within which limits."""

    kind: Literal["verify", "radius", "inspect", "probe"]
    entry: str  #: `module:function` to call
    model: str = ""  #: path of the model's bytes
    digest: str = ""  #: their id
    request: Mapping[str, Any] | None = None  # Any: JSON that the service wrote itself
    places: int = 1  #: that certificates may be of: the centers of radii
    memory_bytes: int = 0
    threads: int = 1
    folder: str = "/"  #: where the child's working directory is
    folders: tuple[str, ...] = ()  #: that it may write in


def run(order: Order, reports: Connection, life: Connection) -> None:
    """Do what is ordered and report; the target of the forked process."""
    held = _enclose(order, life)
    tell = _teller(reports)
    tell(STARTED, held.encode())
    try:
        _WORK[order.kind](order, tell)
    except MemoryError:
        tell(ERROR, _json(_exhausted(order)))
    except Exception as error:  # noqa: BLE001 - the boundary: whatever it was, the job has to know
        tell(ERROR, _json(_explained(order, error)))
    reports.close()
    # No interpreter shutdown: destructors of native libraries have nothing left to say.
    os._exit(0)


Tell: TypeAlias = Callable[[bytes, bytes], None]


def _verify(order: Order, tell: Tell) -> None:
    from verifier.request_json import parse_request

    def on_certificate(certificate: Any) -> None:  # noqa: ANN401 - imported with the verifier
        tell(CERTIFICATE, _text(certificate))

    def on_progress(progress: Any) -> None:  # noqa: ANN401 - the verifier's own record
        tell(
            PROGRESS,
            _json(
                {
                    "phase": str(progress.phase)[:200],
                    "iteration": progress.iteration,
                    "open": progress.open,
                    "seconds": progress.seconds,
                }
            ),
        )

    verify = load_entry(order.entry)
    result = verify(
        _model(order),
        parse_request(order.request),
        on_certificate=on_certificate,
        on_progress=on_progress,
    )
    tell(RESULT, _text(result))


def _radius(order: Order, tell: Tell) -> None:
    from verifier.radius_json import parse_question

    def on_ring(place: int, ring: Any) -> None:  # noqa: ANN401 - the verifier's own record
        tell(RING, place.to_bytes(PLACE_BYTES, "big") + _text(ring.certificate))

    def on_progress(place: int, _low: float, _high: float) -> None:
        tell(PROGRESS, _json({"phase": f"center {place}", "iteration": place}))

    radii = load_entry(order.entry)
    radii(_model(order), parse_question(order.request), on_progress, on_ring)
    tell(RESULT, b"")


def _text(certificate: Any) -> bytes:  # noqa: ANN401 - imported with the verifier
    from verifier.certificate_json import certificate_json

    return _json(certificate_json(certificate))


def _inspect(order: Order, tell: Tell) -> None:
    summary = load_entry(order.entry)(_model(order))
    tell(SUMMARY, _json(summary))


def _probe(_order: Order, tell: Tell) -> None:
    """Tell what the server that forked this child had imported, and how many threads it had."""
    status = Path(f"/proc/{os.getppid()}/status").read_text(encoding="utf-8")
    threads = int(status.partition("Threads:")[2].split()[0])
    tell(HELLO, _json({"threads": threads, "modules": sorted(_HEAVY & set(sys.modules))}))


def load_entry(name: str) -> Callable[..., Any]:  # Any: found by name
    """The function that `module:function` names."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _model(order: Order) -> bytes:
    data = Path(order.model).read_bytes()
    if f"sha256:{hashlib.sha256(data).hexdigest()}" != order.digest:
        raise OSError(f"the stored bytes of {order.digest} have another digest")
    return data


def _enclose(order: Order, life: Connection) -> str:
    """Set what this process may use, and tie its life to the supervisor's; the sandbox's level."""
    os.setsid()  # a group of its own: a kill reaches what the child may start
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lifeline.die_with_parent()
    lifeline.die_with_pipe(life.fileno())
    with suppress(OSError):  # where there is no such file, nothing kills by score either
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    os.umask(0o077)
    os.chdir(order.folder)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
    if order.memory_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (order.memory_bytes, order.memory_bytes))
    if 1 < order.threads and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(order.threads)
    readable = [Path(order.model)]
    if order.kind == "probe":
        readable = [Path(f"/proc/{os.getppid()}/status")]
    return sandbox.enclose(readable, writable=map(Path, order.folders))


def _teller(reports: Connection) -> Tell:
    lock = threading.Lock()

    def tell(frame: bytes, payload: bytes) -> None:
        with lock:
            reports.send_bytes(frame + payload)

    return tell


def _json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False).encode()


def _exhausted(order: Order) -> dict[str, str | None]:

    return ResourceExhausted(
        f"the attempt needed more than its {order.memory_bytes >> 20} MiB of memory",
        fix="ask for a cheaper method, or give the service more memory",
    ).to_json()


def _explained(order: Order, error: Exception) -> dict[str, str | None]:
    from verifier.errors import LipcertError

    if isinstance(error, LipcertError):
        return _told(error)
    # torch reports a refused allocation as a RuntimeError, with this text alone to know it by.
    if "alloc" in str(error) and isinstance(error, RuntimeError):
        return _exhausted(order)
    return {
        "code": "internal-error",
        "title": "A defect of lipcert.",
        "detail": f"{type(error).__name__} in {_where(error)}: {str(error)[:500]}",
        "node": None,
        "fix": "report it, with the model if you may",
    }


def _told(error: LipcertError) -> dict[str, str | None]:
    """The refusal object, and the pointer of a request that the model turned out not to fit."""
    if isinstance(error, InvalidRequest):
        return {**error.to_json(), "pointer": error.pointer}
    return error.to_json()


def _where(error: Exception) -> str:
    """The place that raised, as module and line: enough to find it, without the model's data."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "an unknown place"
    return f"{trace.tb_frame.f_globals.get('__name__')}, line {trace.tb_lineno}"


_HEAVY = {"cvxpy", "numpy", "onnx", "onnxruntime", "scipy", "torch", "verifier.verify"}

_WORK: Mapping[str, Callable[[Order, Tell], None]] = {
    "inspect": _inspect,
    "probe": _probe,
    "radius": _radius,
    "verify": _verify,
}
