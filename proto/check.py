"""Check that the committed stubs belong to the contract.

If the pinned generator is installed, generate the stubs again and compare the files byte for byte. It needs Python 3.12
or older. Without it, compare the descriptors that the runtime builds from the stubs with the names in the .proto files.
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
    """Return exit status 0 if the stubs are fresh. Otherwise name the stale files and return 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", type=Path, required=True, help="a Python with the pinned grpcio-tools")
    generator = parser.parse_args().generator
    stale = compare_files(generator) if has_generator(generator) else compare_descriptors()
    for line in stale:
        print(f"stale: {line} (run `make proto`)", file=sys.stderr)
    return 1 if stale else 0


def has_generator(python: Path) -> bool:
    """Can this Python run the generator?"""
    found = subprocess.run([python, "-c", "import grpc_tools"], capture_output=True, check=False)
    return found.returncode == 0


def compare_files(python: Path) -> list[str]:
    """Generate into a temporary folder, and return the names of all files that differ, are missing or are left over."""
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
    """Compare the text of the contract with the descriptors, and return the names of stale files.

    This compares the names and numbers of fields, and the names of methods.
    """
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
    """Return (name, number) of each field and enum value in a file descriptor, and (name, "rpc") of each method."""
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
