"""Dying together: a process that ends as soon as the one it works for has ended.

The kernel's death signal follows the parent, and a forkserver's children have the forkserver as
their parent; so a child also watches a pipe whose other end only its supervisor holds.
"""

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, where the kernel can (Linux)."""
    parent = os.getppid()
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except AttributeError:
        return  # another system: the pipe alone has to do
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it ended before the kernel was told
