"""Find out whether the packages of the server are installed. The client alone installs the command, but not them."""

from __future__ import annotations

from importlib.util import find_spec

PACKAGES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "safetensors": "safetensors",
    "pillow": "PIL",
    "simplejpeg": "simplejpeg",
    "pydantic-settings": "pydantic_settings",
    "grpcio-status": "grpc_status",
    "grpcio-health-checking": "grpc_health",
    "grpcio-reflection": "grpc_reflection",
}
"""The packages of the extra `server`, each with its module."""


class PackagesMissing(Exception):
    """The extra `server` is not installed. `str()` says which packages are missing, and how to install them."""


def check() -> None:
    """Raise PackagesMissing unless every package is installed. Nothing is imported."""
    missing = [package for package, module in PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise PackagesMissing(
            f"the server is not installed: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing. "
            'Install the server with: pip install "manyview[server]"'
        )
