"""ICC profiles, written by hand: a wide RGB one, one of grey, and one of CMYK."""

from __future__ import annotations

import struct

from PIL import ImageCms

_D50 = (0.9642, 1.0, 0.8249)
_P3 = ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def display_p3(num_more_bytes: int = 0) -> bytes:
    """Return Display P3, the profile of phones, with so many bytes that mean nothing."""
    curve = b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + _numbers(*_SRGB_CURVE)
    colors = {name: _xyz(*values) for name, values in zip((b"rXYZ", b"gXYZ", b"bXYZ"), _P3, strict=True)}
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    return _profile(b"mntr", b"RGB ", b"XYZ ", {**colors, **curves, b"more": b"data\0\0\0\0" + bytes(num_more_bytes)})


def linear_grey() -> bytes:
    """Return a profile whose levels are proportional to light, so that its images are brighter than they look."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": b"curv\0\0\0\0" + struct.pack(">I", 0)})


def cmyk() -> bytes:
    """Return a profile whose only ink is black: cyan, magenta and yellow change nothing."""
    ramp = bytes(range(256))
    lightness = b"".join(bytes((0 if corner & 1 else 255, 128, 128)) for corner in range(16))
    identity = _numbers(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + identity + 4 * ramp + lightness + 3 * ramp
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table})


def _numbers(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65_536)) for value in values)


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + _numbers(*values)


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    name = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = {b"desc": name, b"wtpt": _xyz(*_D50), b"cprt": b"text\0\0\0\0none\0", **tags}
    start = 132 + 12 * len(tags)
    table, body = b"", b""
    for tag, data in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"", 0x02400000, kind, space, connection)
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _numbers(*_D50) + bytes(48)
    return head + struct.pack(">I", len(tags)) + table + body
