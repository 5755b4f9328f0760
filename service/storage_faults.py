"""What the machine refuses, as problems: a full disk, a busy or unreachable database.

Nothing was stored then, or it was and is found again under its digest or Idempotency-Key: a client
that asks again loses nothing. Every other error of the same classes is a defect.
"""

import errno
from collections.abc import Mapping

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection

from service.problems import Problem

FULL, NOT_NOW = "storage-full", "storage-unavailable"

#: What the operating system says, and SQLite's primary result codes.
OF_FILES: Mapping[int, str] = {
    errno.EAGAIN: NOT_NOW,
    errno.EDQUOT: FULL,
    errno.EIO: NOT_NOW,
    errno.EMFILE: NOT_NOW,
    errno.ENFILE: NOT_NOW,
    errno.ENOMEM: NOT_NOW,
    errno.ENOSPC: FULL,
    errno.EROFS: NOT_NOW,
}
OF_SQLITE: Mapping[int, str] = {
    5: NOT_NOW,  # busy
    6: NOT_NOW,  # locked
    7: NOT_NOW,  # no memory
    8: NOT_NOW,  # read-only
    10: NOT_NOW,  # input or output
    13: FULL,
    14: NOT_NOW,  # cannot be opened
}
DISK_FULL = "53100"  #: PostgreSQL's state


def problem_of_fault(error: Exception) -> Problem | None:
    """The problem that a fault is to a client; None where it is a defect."""
    if isinstance(error, OSError):
        code = OF_FILES.get(error.errno or 0)
    elif isinstance(error, OperationalError):
        code = _of_database(error)
    else:
        code = NOT_NOW if isinstance(error, NoConnection | InterfaceError) else None
    return None if code is None else Problem(code, "nothing was acknowledged, so nothing is lost")


def _of_database(error: OperationalError) -> str | None:
    sqlite_code = getattr(error.orig, "sqlite_errorcode", None)
    if sqlite_code is not None:
        return OF_SQLITE.get(sqlite_code & 0xFF)
    # A server's operational errors are about connections and resources, never about a statement.
    return FULL if getattr(error.orig, "sqlstate", None) == DISK_FULL else NOT_NOW
