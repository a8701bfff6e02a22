"""The versions of the libraries that a worker runs on."""

from __future__ import annotations

import importlib.metadata
import platform

import torch


def versions() -> dict[str, str]:
    """Name to version of what decides about numbers: Python, torch, torchvision, timm, and CUDA where torch has it."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    # Asked of what is installed: importing them would take seconds.
    found |= {name: importlib.metadata.version(name) for name in ("torchvision", "timm")}
    return found | ({"cuda": torch.version.cuda} if torch.version.cuda else {})
