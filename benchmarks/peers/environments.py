"""Make an environment for each peer: the peer, and what its server and its caller need, in the pinned versions."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / ".tools" / "peers"
PINS = ROOT / "requirements" / "peers.txt"
SHARED = ("torch", "torchvision", "simplejpeg", "safetensors", "aiohttp")
PACKAGES = {
    "mosec": ("mosec",),
    "litserve": ("litserve", "python-multipart"),
    "bentoml": ("bentoml",),
    "ray": ("ray[serve]",),
}
"""The packages of each peer, beside those that all share."""


def python(peer: str) -> Path:
    """Return the interpreter of a peer's environment."""
    return FOLDER / peer / "bin" / "python"


def pinned(package: str) -> str:
    """Return `package==version`. Raises SystemExit if the file of pins lacks it."""
    name = package.partition("[")[0]
    found = re.search(rf"^{re.escape(name)}==(\S+)", PINS.read_text(), re.MULTILINE)
    if found is None:
        sys.exit(f"{PINS} pins no version of {name}; add it to peers.in and run `make pins`")
    return f"{package}=={found[1]}"


def install(peer: str) -> None:
    """Make the environment of a peer anew."""
    uv = str(Path(sys.executable).parent / "uv")
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(FOLDER / peer)], check=True)
    command = [uv, "pip", "install", "--quiet", "--python", str(python(peer)), "--require-hashes", "-c", str(PINS)]
    subprocess.run([*command, *(pinned(package) for package in (*PACKAGES[peer], *SHARED))], check=True)
