"""Landlock through ctypes: a process takes file and network rights from itself, for good.

Only what is allowed beneath named files and folders stays possible. Numbers and structures: the
kernel's <linux/landlock.h>; a kernel is asked for no right that its ABI version does not know.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  #: the same on every architecture
VERSION = 1  #: the flag that asks for the ABI's version
PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = (1 << bit for bit in range(4))
REMOVE_FILE, MAKE_REG = 1 << 5, 1 << 8
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV  #: what makes sense for a file

#: File rights by the ABI that brought them.
RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: TRUNCATE, 5: IOCTL_DEV}
TCP = 0b11  #: bind, connect (ABI 4)
SCOPES = 0b11  #: abstract sockets and signals of processes outside (ABI 6)


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


def abi() -> int:
    """The version of the kernel's Landlock; 0 where there is none."""
    found: int = _libc().syscall(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION)
    return max(0, found)


def restrict(readable: Sequence[Path], writable: Sequence[Path], devices: Sequence[Path]) -> bool:
    """Whether this thread can now reach nothing but these files, and no TCP.

    Args:
        readable: files and folders to read and execute; what does not exist is passed over.
        writable: files to read and write; folders whose files are made and removed too.
        devices: device files to read, write and control.
    """
    version = abi()
    if not version:
        return False
    handled = sum(rights for since, rights in RIGHTS.items() if since <= version)
    rules = _Ruleset(
        handled_access_fs=handled,
        handled_access_net=TCP if 4 <= version else 0,
        scoped=SCOPES if 6 <= version else 0,
    )
    libc = _libc()
    ruleset: int = libc.syscall(
        CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(ctypes.sizeof(rules)), 0
    )
    if ruleset < 0:
        return False
    try:
        for paths, rights in (
            (readable, EXECUTE | READ_FILE | READ_DIR),
            (writable, READ_FILE | WRITE_FILE | TRUNCATE | READ_DIR | REMOVE_FILE | MAKE_REG),
            (devices, READ_FILE | READ_DIR | WRITE_FILE | IOCTL_DEV),
        ):
            for path in paths:
                _allow(ruleset, path, rights & handled)
        return libc.syscall(RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    with suppress(FileNotFoundError, NotADirectoryError):
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISDIR(os.fstat(opened).st_mode):
                rights &= OF_FILES
            rule = struct.pack("=Qi", rights, opened)  # allowed_access, parent_fd, packed
            _libc().syscall(ADD_RULE, ruleset, PATH_BENEATH, rule, 0)
        finally:
            os.close(opened)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
