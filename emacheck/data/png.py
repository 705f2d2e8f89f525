"""A small PNG encoder whose bytes depend on the pixels alone."""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LONGEST_STORED = 65535


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode 8-bit pixels as an uncompressed PNG.

    Args:
        pixels: uint8, (height, width, 3) for RGB or (height, width) for grey.

    Returns:
        The file's bytes.

    Raises:
        ValueError: The array is of another type or shape, or empty.

    Source: PNG (third edition), W3C 2025; zlib RFC 1950; deflate RFC 1951, section 3.2.4.

    Example:
        >>> encode_png(np.zeros((1, 1), dtype=np.uint8))[1:4]
        b'PNG'
    """
    grey = pixels.ndim == 2
    if pixels.dtype != np.uint8 or pixels.size == 0 or not (grey or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        msg = f"expected uint8 pixels (height, width) or (height, width, 3), found {pixels.dtype} {pixels.shape}"
        raise ValueError(msg)
    height, width = pixels.shape[:2]
    scanlines = np.zeros((height, 1 + pixels.size // height), dtype=np.uint8)  # each row starts with filter 0: none
    scanlines[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if grey else 2, 0, 0, 0)
    body = _stored(scanlines.tobytes())
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _stored(raw: bytes) -> bytes:
    """Wrap bytes into a zlib stream without compressing them."""
    # Stored blocks, since zlib.compress gives other bytes with zlib-ng than with zlib.
    parts = [b"\x78\x01"]
    for start in range(0, len(raw), _LONGEST_STORED):
        block = raw[start : start + _LONGEST_STORED]
        last = start + _LONGEST_STORED >= len(raw)
        parts += [struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block]
    parts.append(struct.pack(">I", zlib.adler32(raw)))
    return b"".join(parts)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
