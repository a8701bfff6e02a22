"""Sections for GPUs and debuggers are cut out of a real shared library, which still does the same."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from container.device_code import without_device_code

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is needed")

MEBIBYTE = 1 << 20
SOURCE = """
int counter = 40;
static const char text[] = "read only";
__attribute__((section("SECTION"))) const char kernels[3 << 20] = {1};
const void* address(void) { return kernels; }
const char* after(void) { return text; }
int count(void) { return ++counter; }
"""
USE = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.after.restype = ctypes.c_char_p
library.address.restype = ctypes.c_void_p
assert library.address() > 0
print(library.after().decode(), library.count(), library.count())
"""


def compiled(folder: Path, section: str) -> Path:
    library = folder / "library.so"
    source = SOURCE.replace("SECTION", section)
    command = ["gcc", "-g", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=source, text=True, check=True)
    return library


def used(library: Path) -> str:
    """Load the library in a process of its own, because damage would end it."""
    return subprocess.run([sys.executable, "-c", USE, library], capture_output=True, text=True, check=True).stdout


def test_a_library_without_its_kernels_is_smaller_and_does_the_same(tmp_path: Path) -> None:
    library = compiled(tmp_path, ".nv_fatbin")
    before = library.read_bytes()
    library.write_bytes(without_device_code(before))
    assert len(before) - 3 * MEBIBYTE <= library.stat().st_size <= len(before) - 3 * MEBIBYTE + 2 * 65536
    assert used(library) == "read only 41 42\n"
    subprocess.run(["readelf", "-W", "-a", library], capture_output=True, check=True)


def test_a_library_without_kernels_stays_as_it_is(tmp_path: Path) -> None:
    before = compiled(tmp_path, ".rodata.large").read_bytes()
    assert without_device_code(before) == before
