"""Put stubs in the place of NVIDIA's libraries, which PyTorch's Linux wheels need to load, and which a CPU never calls.

torch and torchvision of PyPI link to 3 GB of them. This program asks the loader which libraries and symbols it misses
without them, and compiles a small library for each. Every function in it returns 100, the number of CUDA's error "no
device". So torch finds no device, as on a machine without a driver.

Run it with the Python that has torch: python cuda_stubs.py. It needs gcc, readelf and ldd. If nothing is missing, as
with a CPU build of torch, it changes nothing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

FUNCTION = "int {name}(void) {{ return 100; }}"
MESSAGE = 'const char* {name}(void) {{ return "no CUDA-capable device is detected"; }}'
TEXTS = r"(Error|Status)(String|Name)$|^ncclGetLastError$"
"""The names of functions that return a text."""


def main(packages: Path) -> None:
    """Replace the libraries that the torch and torchvision in the folder `packages` miss."""
    libraries = packages / "torch" / "lib"
    entries = [*packages.glob("torch/_C.*.so"), *packages.glob("torchvision/*.so")]
    missing, symbols = unresolved(entries, libraries)
    versions = Versions([*entries, *libraries.glob("*.so")])
    for library in missing:
        # A symbol without a version may be in any of the libraries, so all have it.
        names = {symbol: versions.of(symbol) for symbol in symbols if versions.library(symbol) in (library, "")}
        build(libraries / library, names)
        print(f"{library}: a stub with {len(names)} symbols")
    missing, symbols = unresolved(entries, libraries)
    if missing or symbols:
        raise SystemExit(f"torch still misses the libraries {missing} and the symbols {symbols}")


def unresolved(entries: Iterable[Path], libraries: Path) -> tuple[list[str], list[str]]:
    """Return the libraries and the symbols that the loader misses for `entries`, apart from those of Python itself."""
    environment = os.environ | {"LD_LIBRARY_PATH": str(libraries), "LC_ALL": "C"}
    commands = (["ldd", "-r", str(entry)] for entry in entries)
    done = [subprocess.run(command, env=environment, capture_output=True, text=True) for command in commands]
    text = "".join(each.stdout for each in done)
    missing = set(re.findall(r"^\s*(\S+) => not found", text, re.MULTILINE))
    symbols = set(re.findall(r"^(?:undefined symbol: |symbol )([^\s,]+)", text, re.MULTILINE))
    return sorted(missing), sorted(symbol for symbol in symbols if not re.match("_?Py", symbol))


class Versions:
    """The versions of the symbols that some files need, and the library that must have each version."""

    def __init__(self, files: Sequence[Path]) -> None:
        command = ["readelf", "-W", "--version-info", "--dyn-syms", *map(str, files)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        self._versions: dict[str, str] = dict(re.findall(r" UND ([^\s@]+)@([^\s@]+)", text))
        self._libraries: dict[str, str] = {}
        for library, versions in re.findall(r"File: (\S+)(.*(?:\n.*Name: .*)*)", text):
            self._libraries |= dict.fromkeys(re.findall(r"Name: (\S+)", versions), library)

    def of(self, symbol: str) -> str:
        """Return the version of a symbol, or "" if it has none."""
        return self._versions.get(symbol, "")

    def library(self, symbol: str) -> str:
        """Return the library that must have a symbol, or "" if any of them may have it."""
        return self._libraries.get(self.of(symbol), "")


def build(library: Path, symbols: Mapping[str, str]) -> None:
    """Compile a library of functions, given as their names and versions."""
    forms = {name: MESSAGE if re.search(TEXTS, name) else FUNCTION for name in symbols}
    nodes = [
        (version, [name for name in symbols if symbols[name] == version]) for version in {*symbols.values()} - {""}
    ]
    with tempfile.TemporaryDirectory() as folder:
        code, script = Path(folder, "stub.c"), Path(folder, "versions")
        code.write_text("\n".join(form.format(name=name) for name, form in forms.items()))
        script.write_text("\n".join(f"{version} {{ {'; '.join(names)}; }};" for version, names in nodes))
        flags = [
            "-shared",
            "-fPIC",
            f"-Wl,-soname,{library.name}",
            *([f"-Wl,--version-script={script}"] if nodes else []),
        ]
        subprocess.run(["gcc", *flags, "-o", library, code], check=True)


if __name__ == "__main__":
    main(Path(sysconfig.get_path("platlib")))
