"""The files of the models that all sides serve, by image size and number format."""

from __future__ import annotations

from pathlib import Path


def job_name(image_size: int, number_format: str) -> str:
    """Return the name of the job of a size and a format."""
    return f"resnet18-{image_size}-{number_format}"


def server_data(folder: Path) -> Path:
    """Return manyview's data directory."""
    return folder / "manyview"


def weights(folder: Path, image_size: int, number_format: str) -> Path:
    """Return the file with the weights of a model."""
    return folder / f"{job_name(image_size, number_format)}.safetensors"


def expected(folder: Path, image_size: int, number_format: str) -> Path:
    """Return the file with manyview's rows of the first images."""
    return folder / f"{job_name(image_size, number_format)}.npy"
