"""Files that are there whole or not at all, whatever the disk does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A neighbouring path to write to, which takes the name ``path`` at the end of the block.

    Where the block or the disk fails, what was at ``path`` before is still there, and nothing is beside it.

    Parameters
    ----------
    path
        The file to be; its folder is made.
    durable
        Have all of it on the disk before it takes its name, so that even a power cut leaves one or the other.

    Raises
    ------
    OSError
        If it cannot be written; names ``path``.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        if durable:
            _flush(partial)
        partial.replace(path)
        if durable and os.name == "posix":  # folders cannot be opened on Windows
            _flush(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        with suppress(OSError):  # a folder that cannot be written to holds none
            partial.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes, *, durable: bool = False) -> None:
    """Write ``content`` by :func:`whole_file`; texts in UTF-8, line ends as they are."""
    with whole_file(path, durable=durable) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
