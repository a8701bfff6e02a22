"""What a worker runs on."""

from __future__ import annotations

import importlib.metadata
import platform

import torch


def versions() -> dict[str, str]:
    """Name to version of what decides about numbers: Python, torch, torchvision, and CUDA where torch has it."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    # Asked of the package index on disk: importing it would take a second.
    found["torchvision"] = importlib.metadata.version("torchvision")
    return found | ({"cuda": torch.version.cuda} if torch.version.cuda else {})
