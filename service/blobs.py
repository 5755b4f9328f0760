"""Bytes by their SHA-256, as files: models, certificates, checkpoints; a folder for each tenant.

Envelopes that sign a certificate stand under the digest of its text.
A file is written under a temporary name, flushed to the disk, renamed, and its folder flushed:
a name that exists therefore always holds whole bytes of its digest. What a crash leaves behind
are temporary files only, removed at the next start.
"""

import hashlib
import os
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, TypeAlias

Shelf: TypeAlias = Literal["models", "certificates", "envelopes", "checkpoints"]

TEMPORARY_AGE_S = 24 * 3600.0


class Draft:
    """Bytes that are being received: counted and hashed as they come. Discarded unless kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._hash = hashlib.sha256()
        self._file: BinaryIO = path.open("xb")

    @property
    def digest(self) -> str:
        """The hex SHA-256 of what was received so far."""
        return self._hash.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Receive more bytes."""
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def flush(self) -> None:
        """Have the bytes on the disk; nothing can be received after this."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def keep(self, place: Path) -> None:
        """Give flushed bytes their final name, unless the same bytes have it."""
        _make_folder(place.parent)
        if place.is_file():
            # Not replaced: a child that may read the file that is there may read no other one.
            os.utime(place)
        else:
            self.path.replace(place)
        _flush_folder(place.parent)

    def discard(self) -> None:
        """Remove the bytes, if they were not kept."""
        try:
            self._file.close()  # writes what is left, and so fails on a full disk
        finally:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> "Draft":
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.discard()


@dataclass(frozen=True, slots=True)
class Blobs:
    """A folder of blobs."""

    root: Path
    temporary: Path = field(init=False)

    def __post_init__(self) -> None:
        # The same file system as the shelves: a rename across file systems is a copy.
        object.__setattr__(self, "temporary", self.root / "tmp")
        self.temporary.mkdir(parents=True, exist_ok=True, mode=0o700)

    def place(self, shelf: Shelf, tenant: str, digest: str) -> Path:
        """Where the bytes with this hex digest are, or would be."""
        return self.folder(shelf, tenant) / digest

    def folder(self, shelf: Shelf, tenant: str) -> Path:
        """Where all of a tenant's blobs of one sort are."""
        return self.root / shelf / tenant

    def draft(self) -> Draft:
        """A new temporary file to receive bytes in."""
        return Draft(self.scratch("draft"))

    def scratch(self, label: str) -> Path:
        """A new temporary name."""
        return self.temporary / f"{label}-{secrets.token_hex(8)}"

    def remove(self, shelf: Shelf, tenant: str, digest: str) -> None:
        """Forget the bytes, if they are there."""
        self.place(shelf, tenant, digest).unlink(missing_ok=True)

    def remove_stale(self) -> None:
        """Remove temporary files older than a day: what crashes left behind."""
        for path in self.temporary.iterdir():
            if is_older(path, TEMPORARY_AGE_S):
                path.unlink(missing_ok=True)

    def probe(self) -> bool:
        """Whether a byte can be written and read again."""
        path = self.scratch("probe")
        try:
            path.write_bytes(b"x")
            return path.read_bytes() == b"x"
        except OSError:
            return False
        finally:
            path.unlink(missing_ok=True)


def is_older(path: Path, seconds: float) -> bool:
    """Whether a file is there, and was last written longer ago."""
    try:
        return path.stat().st_mtime < time.time() - seconds
    except FileNotFoundError:
        return False


def _make_folder(folder: Path) -> None:
    """Make a folder whose name survives a power cut, as the files in it do."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _flush_folder(folder.parent)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
