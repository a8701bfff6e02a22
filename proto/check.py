"""Are the committed stubs those of the contract? Regenerates them and compares.

With the pinned generator the files are compared byte for byte. Where it does not install (it needs Python 3.12 or
older) the descriptors that the runtime builds from the stubs are compared with the names in the .proto files.
"""

from __future__ import annotations

import argparse
import filecmp
import importlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PROTO = Path(__file__).parent / "manyview" / "v1"
STUBS = Path(__file__).parent.parent / "client" / "manyview" / "v1"


def main() -> int:
    """Exit status 0 when fresh, 1 with the stale files named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", type=Path, required=True, help="a Python with the pinned grpcio-tools")
    generator = parser.parse_args().generator
    stale = compare_files(generator) if has_generator(generator) else compare_descriptors()
    for line in stale:
        print(f"stale: {line} (run `make proto`)", file=sys.stderr)
    return 1 if stale else 0


def has_generator(python: Path) -> bool:
    """Whether this Python can run protoc."""
    found = subprocess.run([python, "-c", "import grpc_tools"], capture_output=True, check=False)
    return found.returncode == 0


def compare_files(python: Path) -> list[str]:
    """Generate into a temporary folder; name every file that differs, is missing or is left over."""
    with tempfile.TemporaryDirectory() as out:
        environment = {**os.environ, "PROTO_PYTHON": str(python.absolute())}
        subprocess.run([PROTO.parent.parent / "generate", out], env=environment, check=True)
        fresh = {p.name: p for p in (Path(out) / "manyview" / "v1").iterdir()}
        committed = {p.name: p for p in STUBS.iterdir() if "_pb2" in p.name}
        differing = [
            n for n in fresh.keys() & committed.keys() if not filecmp.cmp(fresh[n], committed[n], shallow=False)
        ]
        return sorted([*differing, *(fresh.keys() ^ committed.keys())])


def compare_descriptors() -> list[str]:
    """Names and numbers of every field, and names of every method, in the text against those in the descriptors."""
    stale = []
    for proto in sorted(PROTO.glob("*.proto")):
        text = re.sub(r"//[^\n]*", "", proto.read_text())
        written = set(re.findall(r"\b(\w+) = (\d+);", text)) | {
            (name, "rpc") for name in re.findall(r"rpc (\w+)\(", text)
        }
        if written != described(importlib.import_module(f"manyview.v1.{proto.stem}_pb2").DESCRIPTOR):
            stale.append(f"{proto.stem}_pb2.py")
    return stale


def described(file: Any) -> set[tuple[str, str]]:
    """(name, number) of every field and enum value, (name, "rpc") of every method of a file descriptor."""
    found: set[tuple[str, str]] = set()

    def enum(descriptor: Any) -> None:
        found.update((v.name, str(v.number)) for v in descriptor.values)

    def message(descriptor: Any) -> None:
        if descriptor.GetOptions().map_entry:
            return
        found.update((f.name, str(f.number)) for f in descriptor.fields)
        for nested in descriptor.nested_types:
            message(nested)
        for nested in descriptor.enum_types:
            enum(nested)

    for descriptor in file.message_types_by_name.values():
        message(descriptor)
    for descriptor in file.enum_types_by_name.values():
        enum(descriptor)
    for service in file.services_by_name.values():
        found.update((method.name, "rpc") for method in service.methods)
    return found


if __name__ == "__main__":
    sys.exit(main())
