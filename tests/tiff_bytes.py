"""TIFF files written byte by byte, with tags that Pillow would not write."""

import struct

import numpy as np

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, OFFSETS, ORIENTATION, SAMPLES, PER_STRIP, COUNTS = (
    256, 257, 258, 259, 262, 273, 274, 277, 278, 279,
)  # fmt: skip
TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_COUNTS, EXTRA, SAMPLE_FORMAT = 322, 323, 324, 325, 338, 339


def tiff_bytes(pixels, tags=None, without=(), pages=1, next_page=None):
    """A little-endian TIFF of one uncompressed strip.

    pixels: (H, W), (H, W, C) of any dtype, kept as they are; tags: number -> value (int, or a tuple of them), written
    as LONG in the place of those that belong to the pixels; without: tags left out; pages: directories in a chain, all
    alike; next_page: where the last one says that another begins.
    """
    pixels = np.asarray(pixels)
    data = np.ascontiguousarray(pixels).tobytes()
    samples = 1 if pixels.ndim == 2 else pixels.shape[2]
    fields = {
        WIDTH: pixels.shape[1], LENGTH: pixels.shape[0], BITS: (8 * pixels.itemsize,) * samples, COMPRESSION: 1,
        PHOTOMETRIC: 1 if samples == 1 else 2, OFFSETS: 8, SAMPLES: samples, PER_STRIP: pixels.shape[0],
        COUNTS: len(data),
    } | (tags or {})  # fmt: skip
    fields = {tag: value for tag, value in sorted(fields.items()) if tag not in without}
    out = bytearray(b"II*\0" + struct.pack("<I", 0) + data)
    link = 4
    for _ in range(pages):
        entries = b""
        for tag, value in fields.items():
            values = value if isinstance(value, tuple) else (value,)
            packed = struct.pack(f"<{len(values)}I", *values)
            if len(packed) > 4:
                place = struct.pack("<I", len(out))
                out += packed
            else:
                place = packed.ljust(4, b"\0")
            entries += struct.pack("<HHI", tag, 4, len(values)) + place
        out[link : link + 4] = struct.pack("<I", len(out))
        out += struct.pack("<H", len(fields)) + entries
        link = len(out)
        out += b"\0\0\0\0"
    if next_page is not None:
        out[link : link + 4] = struct.pack("<I", next_page)
    return bytes(out)
