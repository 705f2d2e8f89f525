"""How the bytes of a log arrive: from a file or standard input, compressed or not, in UTF-8 or UTF-16."""

import bz2
import codecs
import contextlib
import gzip
import lzma
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from emacheck.errors import LogError, MissingExtraError
from emacheck.logs.lines import Bytes
from emacheck.oddity import Oddity, OddityKind, oddity

STANDARD_INPUT = "-"
HEAD = 4 << 20
MAGIC = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2"}
MOST = 64 << 30
"""No log is decompressed beyond this many bytes."""
MOST_RATIO = 500
"""Nor beyond this many times its compressed size (logs reach about 100), once it has passed :data:`RATIO_FROM`."""
RATIO_FROM = 256 << 20
Progress = Callable[[int, int | None], None]
"""Is told how many bytes of a log were read, as they are stored, and of how many; None if that is not known."""
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Rejoined:
    """A stream that gives back a beginning that was read already, and counts what was taken from the source."""

    def __init__(self, start: bytes, source: Bytes) -> None:
        self._start = start
        self._source = source
        self.taken = 0

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes."""
        if self._start:
            piece, self._start = (self._start, b"") if size < 0 else (self._start[:size], self._start[size:])
        else:
            piece = self._source.read(size)
        self.taken += len(piece)
        return piece

    def readable(self) -> bool:
        """Tell the decompressors of the standard library that this can be read."""
        return True

    def seekable(self) -> bool:
        """Tell the decompressors of the standard library that this cannot be rewound."""
        return False

    @property
    def closed(self) -> bool:
        """Whether it was closed, which is the business of its source."""
        return False


class Decompressed:
    """The contents of a compressed stream, bounded, and up to where it is damaged or cut off."""

    def __init__(self, name: str, kind: str, source: Rejoined) -> None:
        self._name, self._kind, self._source = name, kind, source
        self._file = _opened(name, kind, source)
        self._given = 0
        self.damage = ""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes."""
        pieces, wanted = [], size
        while wanted > 0 and not self.damage:
            try:
                piece = self._file.read1(wanted)
            except _damage() as error:
                self.damage = f"the {self._kind} data is damaged or cut off: {error}; what comes before is read"
                break
            if not piece:
                break
            pieces.append(piece)
            wanted -= len(piece)
        self._given += size - wanted
        self._bound()
        return b"".join(pieces)

    def _bound(self) -> None:
        ratio = self._given / max(self._source.taken, 1)
        if self._given > MOST or (self._given > RATIO_FROM and ratio > MOST_RATIO):
            raise LogError(
                f"{self._name}: stopped after {self._given} bytes were decompressed from {self._source.taken}: more "
                f"than {MOST} bytes, or more than {MOST_RATIO} times the compressed size, is no log. Check where this "
                "file comes from; if it is a log, decompress it first."
            )


class Arriving:
    """The bytes of a log, of which the head can be looked at before.

    Attributes:
        head: The first 4 MiB, decompressed and in UTF-8.
    """

    def __init__(self, name: str, source: Bytes) -> None:
        self._stream: Bytes = source
        self._decompressed: Decompressed | None = None
        start = _exactly(source, max(map(len, MAGIC)))
        kind = next((kind for magic, kind in MAGIC.items() if start.startswith(magic)), None)
        if kind is not None:
            start, self._decompressed = b"", Decompressed(name, kind, Rejoined(start, source))
            self._stream = self._decompressed
        start = self._fill(start)
        if start.startswith(_UTF_16) and not start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
            self._stream = _Transcoded(Rejoined(start, self._stream))
            start = self._fill(b"")
        elif start.startswith(codecs.BOM_UTF8):
            start = start[len(codecs.BOM_UTF8) :]
        self.head = start
        self._rest = Rejoined(start, self._stream)

    @property
    def remarks(self) -> tuple[Oddity, ...]:
        """What to say about damage that was met so far."""
        damage = "" if self._decompressed is None else self._decompressed.damage
        return (oddity(OddityKind.DAMAGED, damage),) if damage else ()

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes from the beginning on."""
        return self._rest.read(size)

    def _fill(self, start: bytes) -> bytes:
        pieces, size = [start], len(start)
        while size < HEAD and (piece := self._stream.read(HEAD - size)):
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)


def _exactly(source: Bytes, size: int) -> bytes:
    """Return the first bytes, which a pipe may give one by one."""
    start = b""
    while len(start) < size and (piece := source.read(size - len(start))):
        start += piece
    return start


class _Followed:
    """A source that tells how far it was read."""

    def __init__(self, source: Bytes, size: int | None, progress: Progress) -> None:
        self._source, self._size, self._progress = source, size, progress
        self._taken = 0

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes."""
        piece = self._source.read(size)
        self._taken += len(piece)
        self._progress(self._taken, self._size)
        return piece


def _followed(source: Bytes, size: int | None, progress: Progress | None) -> Bytes:
    return source if progress is None else _Followed(source, size, progress)


class _Transcoded:
    """UTF-16 as UTF-8."""

    def __init__(self, source: Bytes) -> None:
        self._source = source
        self._decoder = codecs.getincrementaldecoder("utf-16")(errors="replace")

    def read(self, size: int, /) -> bytes:
        """Return about ``size`` bytes; none only at the end."""
        while piece := self._source.read(max(size, 2)):
            if text := self._decoder.decode(piece):
                return text.encode("utf-8", "replace")
        return self._decoder.decode(b"", final=True).encode("utf-8", "replace")


@contextmanager
def arriving(path: Path | str, progress: Progress | None = None) -> Iterator[Arriving]:
    """Open a log; ``-`` is standard input."""
    if str(path) == STANDARD_INPUT:
        if sys.stdin is None:
            raise LogError("standard input is closed, expected a log. Give a file, or pipe the log into emacheck.")
        yield Arriving("standard input", _followed(sys.stdin.buffer, None, progress))
        return
    with Path(path).open("rb", buffering=0) as file:
        found = os.fstat(file.fileno())
        size = found.st_size if stat.S_ISREG(found.st_mode) else None
        yield Arriving(str(path), _followed(cast("BinaryIO", file), size, progress))


def _opened(name: str, kind: str, source: Rejoined) -> Any:
    if kind == "gzip":
        return gzip.GzipFile(fileobj=source)  # type: ignore[call-overload]
    if kind == "zstd":
        zstd = _zstd()
        if zstd is None:
            raise MissingExtraError(
                f"{name}: compressed with zstd, which this Python cannot read by itself. Install the extra: "
                "pip install 'emacheck[zstd]', or decompress the file first."
            )
        return zstd.ZstdFile(source)
    return lzma.LZMAFile(source) if kind == "xz" else bz2.BZ2File(source)  # type: ignore[arg-type,call-overload]


def _zstd() -> Any:
    """Return the zstd module of the standard library or its backport, or None."""
    with contextlib.suppress(ImportError):
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]  # Python 3.14 and later

        return zstd
    with contextlib.suppress(ImportError):
        from backports import zstd

        return zstd
    return None


def _damage() -> tuple[type[Exception], ...]:
    """Return what the decompressors raise on data that is damaged or cut off."""
    module = sys.modules.get("compression.zstd") or sys.modules.get("backports.zstd")
    known = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)
    return (*known, module.ZstdError) if module is not None else known
