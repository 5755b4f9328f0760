"""Dying together: a process that ends as soon as the one it works for has ended.

The kernel's death signal follows the parent, and a forkserver's children have the forkserver as
their parent; so a child also holds the end of a pipe whose other end only its supervisor has.
Where the kernel can (Linux), the pipe's end is itself a signal: it kills a child too whose
native code never gives the interpreter back, which a watching thread would wait for.
"""

import ctypes
import fcntl
import os
import select
import signal
import sys
import threading

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
F_SETSIG = 10  # Python's fcntl does not name it


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, where the kernel can (Linux)."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it ended before the kernel was told


def gain_nothing() -> None:
    """Give up for good what an exec could gain, such as another user's rights (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def die_with_pipe(descriptor: int) -> None:
    """End this process when the other end of a pipe is closed, by whatever cause."""
    if sys.platform != "linux":
        threading.Thread(target=_watch, args=(descriptor,), daemon=True).start()
        return
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(descriptor, F_SETSIG, signal.SIGKILL)
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC)
    ended = select.poll()
    ended.register(descriptor, select.POLLIN)
    if ended.poll(0):
        os._exit(1)  # it was closed before the kernel was told


def _watch(descriptor: int) -> None:
    os.read(descriptor, 1)
    os._exit(1)
