"""Cut the code for GPUs, and the symbols for debuggers, out of PyTorch's shared libraries.

337 of the 520 MB of libtorch_cuda.so are kernels for GPUs, in the section .nv_fatbin. On a CPU nothing reads them: only
their address is passed to CUDA. The library itself must stay, because the rest of torch links to it. So the bytes are
cut out of the file, and the segment that held them becomes two segments. Between them is a gap of addresses without
memory. All other addresses stay as they are. Symbols for debuggers are another 180 MB, and no segment holds them.

Run it with the Python that has torch: python device_code.py.
"""

from __future__ import annotations

import struct
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CUT = (b".nv_fatbin", b".symtab", b".strtab")
ALIGNMENT = 1 << 16
"""A cut starts and ends at a multiple of this, so that segments still start at a page. Pages have 4 to 64 KiB."""
LOADED, NOTE = 1, 4
WITHOUT_BYTES = 8
HEADER = struct.Struct("<32xQQ6xHHHHH")
"""The part of the file's header that says where segments and sections are listed, how many there are, and which one has
the names. It is the form of 64-bit files, little-endian."""


class Segment(NamedTuple):
    """A program header: bytes of the file, and the address where the loader maps them."""

    type: int
    flags: int
    offset: int
    address: int
    physical_address: int
    num_bytes: int
    num_bytes_in_memory: int
    alignment: int

    def parts(self, start: int, end: int) -> Iterator[Segment]:
        """Yield the segment without the bytes from `start` to `end` of the file."""
        if self.type != LOADED or not self.offset < start < end < self.offset + self.num_bytes:
            yield self
            return
        length, skipped = start - self.offset, end - self.offset
        yield self._replace(num_bytes=length, num_bytes_in_memory=length)
        yield self._replace(
            offset=end,
            address=self.address + skipped,
            physical_address=self.physical_address + skipped,
            num_bytes=self.num_bytes - skipped,
            num_bytes_in_memory=self.num_bytes_in_memory - skipped,
        )


class Section(NamedTuple):
    """A section header, which tools read and the loader does not."""

    name: int
    type: int
    flags: int
    address: int
    offset: int
    num_bytes: int
    link: int
    info: int
    alignment: int
    entry_bytes: int

    def hole(self) -> tuple[int, int]:
        """Return the start and the end of what can be cut. There is nothing to cut if they are equal."""
        start = -(-self.offset // ALIGNMENT) * ALIGNMENT
        return start, max(start, (self.offset + self.num_bytes) // ALIGNMENT * ALIGNMENT)


SEGMENT, SECTION = struct.Struct("<IIQQQQQQ"), struct.Struct("<IIQQQQIIQQ")


def main() -> None:
    """Cut the libraries of the torch that this interpreter has."""
    for path in sorted(Path(sysconfig.get_path("platlib"), "torch", "lib").glob("*.so")):
        before = path.read_bytes()
        after = without_device_code(before)
        if len(after) < len(before):
            path.write_bytes(after)
            print(f"{path.name}: {len(before) / 1e6:.0f} MB, now {len(after) / 1e6:.0f} MB")


def without_device_code(data: bytes) -> bytes:
    """Return the file of a shared library without the sections `CUT`."""
    segments_at, sections_at, _, num_segments, _, num_sections, names_in = HEADER.unpack_from(data)
    segments = [Segment(*SEGMENT.unpack_from(data, segments_at + i * SEGMENT.size)) for i in range(num_segments)]
    sections = [Section(*SECTION.unpack_from(data, sections_at + i * SECTION.size)) for i in range(num_sections)]
    names = sections[names_in].offset
    named = [each for each in sections if data[names + each.name : names + each.name + 64].split(b"\0")[0] in CUT]
    gone = [each for each in named if each.hole()[0] < each.hole()[1]]
    holes = sorted(each.hole() for each in gone)
    if not holes:
        return data

    def moved(offset: int) -> int:
        return offset - sum(end - start for start, end in holes if end <= offset)

    for hole in holes:
        segments = [part for segment in segments for part in segment.parts(*hole)]
    if len(segments) > num_segments:
        # Notes, such as the number of the build, make room: loading does not need them.
        segments = [segment for segment in segments if segment.type != NOTE]
    if segments_at + len(segments) * SEGMENT.size > min(each.offset for each in sections if each.offset):
        raise SystemExit("the file has no room for another segment")
    edges = [0, *(edge for hole in holes for edge in hole), len(data)]
    result = bytearray(b"".join(data[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)))
    struct.pack_into("<Q", result, 40, moved(sections_at))
    struct.pack_into("<H", result, 56, len(segments))
    for i, segment in enumerate(segments):
        SEGMENT.pack_into(result, segments_at + i * SEGMENT.size, *segment._replace(offset=moved(segment.offset)))
    for i, section in enumerate(sections):
        kind = section.type if section not in gone else WITHOUT_BYTES if section.address else 0
        SECTION.pack_into(
            result, moved(sections_at) + i * SECTION.size, *section._replace(type=kind, offset=moved(section.offset))
        )
    return bytes(result)


if __name__ == "__main__":
    main()
