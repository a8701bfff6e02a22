"""A library that links to CUDA's, like torch's, loads without them and finds no device."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from container import cuda_stubs

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is needed")

RUNTIME = "int cudaGetDeviceCount(int* n) { *n = 8; return 0; } const char* cudaGetErrorString(int e) { return 0; }"
COLLECTIVES = "int ncclGetVersion(int* v) { *v = 1; return 0; }"
TORCH = """
int cudaGetDeviceCount(int*);
const char* cudaGetErrorString(int);
int ncclGetVersion(int*);
int num_devices(void) { int n = 0; return cudaGetDeviceCount(&n) ? -1 : n; }
int version(void) { int v = 0; return ncclGetVersion(&v); }
const char* reason(void) { return cudaGetErrorString(100); }
"""
USE = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.reason.restype = ctypes.c_char_p
print(library.num_devices(), library.version(), library.reason().decode())
"""


def link(target: Path, source: str, *flags: str) -> None:
    code = target.with_name("source.c")
    code.write_text(source)
    command = ["gcc", "-shared", "-fPIC", "-o", str(target), str(code), f"-Wl,-soname,{target.name}", *flags]
    subprocess.run(command, check=True)


def test_missing_libraries_are_replaced_with_their_versions_and_nothing_else_is(tmp_path: Path) -> None:
    libraries = tmp_path / "torch" / "lib"
    libraries.mkdir(parents=True)
    cuda = [tmp_path / "libcudart.so.913", tmp_path / "libnccl.so.902"]
    versions = tmp_path / "versions"
    versions.write_text("libcudart.so.913 { global: *; };")
    link(cuda[0], RUNTIME, f"-Wl,--version-script={versions}")
    link(cuda[1], COLLECTIVES)
    torch = tmp_path / "torch" / "_C.cpython.so"
    link(torch, TORCH, "-Wl,-rpath,$ORIGIN/lib", "-Wl,--no-as-needed", *map(str, cuda))
    for library in cuda:
        library.unlink()

    cuda_stubs.main(tmp_path)
    made = {path.name: path.read_bytes() for path in libraries.iterdir()}
    done = subprocess.run([sys.executable, "-c", USE, torch], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("-1 100 no CUDA-capable device is detected\n", "")
    assert made.keys() == {path.name for path in cuda}

    cuda_stubs.main(tmp_path)
    assert {path.name: path.read_bytes() for path in libraries.iterdir()} == made, "nothing was missing"
