"""Files that the user of the command line names: read whole and bounded, written whole."""

from pathlib import Path

from verifier.errors import InvalidRequest

SPEC_BYTES = 64 * 2**20  #: the most that a request or an array file may hold


def read_bytes(path: Path, what: str, limit: int = SPEC_BYTES) -> bytes:
    """A file's bytes.

    Raises:
        InvalidRequest: it cannot be read, or holds more than `limit` bytes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InvalidRequest(
            f"{what} {str(path)!r} cannot be read: {reason}", fix="give the path of a readable file"
        ) from error
    if limit < len(data):
        raise InvalidRequest(
            f"{what} {str(path)!r} has more than {limit} bytes", fix="give a smaller file"
        )
    return data


def write_text(path: Path, text: str) -> None:
    """Writes a file that the user named.

    Raises:
        InvalidRequest: it cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(
            f"{str(path)!r} cannot be written: {error.strerror}", fix="give a writable path"
        ) from error
