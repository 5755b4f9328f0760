"""What a process that reads strangers' bytes gives up: files, sockets, processes, privileges.

    landlock   files beyond those it needs, TCP, signals and sockets of others (Linux 5.13 and on)
    seccomp    the system calls that make sockets, processes and links, or reach other processes

Both hold for the threads that this one starts, so they are taken up while it is the only one. They
need no rights, are never given back, and where a layer is missing the others stand: what holds is
reported, as `full`, `partial(<missing>)` or `none`.
"""

import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from service import lifeline
from service.sandbox import landlock, seccomp

#: Read by the loader, numpy, torch and onnxruntime when they start, and nothing about anyone.
SYSTEM_FILES = (
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/dev/urandom",
)

CUDA = Path("/dev/nvidiactl")  #: there is one: the driver's own files and calls are needed too


def enclose(readable: Iterable[Path] = (), writable: Iterable[Path] = ()) -> str:
    """Give up everything but the interpreter, its libraries, and the files that are named.

    Args:
        readable: files and folders to read, beside the interpreter's.
        writable: files to write, which exist; folders to write in.

    Returns:
        What holds from now on: `full`, `partial(<missing>)` or `none`.
    """
    held = {"landlock": False, "seccomp": False}
    lifeline.gain_nothing()  # what the kernel asks for before it lets anyone filter itself
    if sys.platform == "linux":
        files = [Path(name) for name in SYSTEM_FILES]
        held["landlock"] = landlock.restrict(
            readable=[*files, *_interpreter(), *readable],
            writable=[Path("/dev/null"), *writable],
            devices=sorted(CUDA.parent.glob("nvidia*")),
        )
        # CUDA's driver makes sockets and memory files of its own: untested, so not filtered.
        held["seccomp"] = not CUDA.exists() and seccomp.restrict()
    return level(held)


def available() -> str:
    """What `enclose` would bring about here, as far as asking tells."""
    if sys.platform != "linux":
        return level({"landlock": False, "seccomp": False})
    has_filter = not CUDA.exists() and seccomp.is_available()
    return level({"landlock": 0 < landlock.abi(), "seccomp": has_filter})


def level(held: dict[str, bool]) -> str:
    """`full`, `partial(<missing>)` or `none`."""
    missing = [layer for layer, holds in held.items() if not holds]
    if not missing:
        return "full"
    return "none" if len(missing) == len(held) else f"partial({', '.join(missing)})"


def _interpreter() -> list[Path]:
    """Where modules and libraries are loaded from."""
    names = {sys.prefix, sys.base_prefix, sys.exec_prefix, *sysconfig.get_paths().values()}
    return [Path(name) for name in sorted({*names, *filter(None, sys.path)})]
