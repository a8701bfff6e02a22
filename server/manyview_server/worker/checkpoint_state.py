"""Save and restore the whole state of a training run as safetensors and JSON. Nothing is pickled.

Users export `backbone.safetensors`. `state.safetensors` holds every other tensor: the rest of the method (heads,
teacher, bank) as ``method.NAME``, the optimizer's as ``optimizer.INDEX.NAME``, and the linear probe's, if there is one,
as ``probe.NAME``. Learning rates and orders are functions of the step and are not stored.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from manyview_server.learn.backbones import Backbone, WeightsNotFinite, check_finite, load_weights
from manyview_server.learn.evaluation.linear_probe import LinearProbe
from manyview_server.learn.methods import Method
from manyview_server.learn.optimizers import Optimizer
from manyview_server.store.jobs import checkpoints

BACKBONE_PREFIX = "encoder.backbone."
METHOD_PREFIX = "method."
OPTIMIZER_PREFIX = "optimizer."
PROBE_PREFIX = "probe."


def capture(method: Method, optimizer: Optimizer, probe: LinearProbe | None = None) -> dict[str, dict[str, Tensor]]:
    """Return a copy of every tensor on the CPU, by file. Waits for the device; training may continue at once."""
    backbone, state = {}, {}
    for name, tensor in method.state_dict().items():
        if name.startswith(BACKBONE_PREFIX):
            backbone[name.removeprefix(BACKBONE_PREFIX)] = _copy(tensor)
        else:
            state[METHOD_PREFIX + name] = _copy(tensor)
    for index, parameter in enumerate(optimizer.parameters):
        for name, tensor in optimizer.state.get(parameter, {}).items():
            state[f"{OPTIMIZER_PREFIX}{index}.{name}"] = _copy(tensor)
    if probe is not None:
        state |= {PROBE_PREFIX + name: _copy(tensor) for name, tensor in probe.state_dict().items()}
    return {checkpoints.BACKBONE: backbone, checkpoints.STATE: state}


def write(directory: Path, tensors: Mapping[str, Mapping[str, Tensor]], state_json: bytes) -> dict[str, Any]:
    """Write the result of `capture` as a checkpoint, and return its manifest. Raises OSError."""

    def writer(named: Mapping[str, Tensor]) -> Any:
        return lambda path: _save(named, path)

    files = {file: writer(named) for file, named in tensors.items()}
    return checkpoints.write(directory, {**files, checkpoints.STATE_JSON: state_json})


def restore(directory: Path, method: Method, optimizer: Optimizer) -> None:
    """Load the checkpoint's tensors into a method and an optimizer that were built with the same settings.

    Raises:
        ValueError: the checkpoint has another model or another optimizer.
        WeightsNotFinite: it holds NaN or infinity.
    """
    state = load_file(directory / checkpoints.STATE)
    restore_method(directory, method, state)
    if not any(name.startswith(OPTIMIZER_PREFIX) for name in state):
        return  # the run that wrote it had momentum 0, so the optimizer had no state
    for index, parameter in enumerate(optimizer.parameters):
        for name, tensor in optimizer.state.get(parameter, {}).items():
            # The existing tensor is filled: it has the parameter's memory layout, which the fused update needs.
            saved = state.get(f"{OPTIMIZER_PREFIX}{index}.{name}")
            if saved is None or saved.shape != tensor.shape:
                raise ValueError(f"{directory.name} lacks the optimizer's {name} of parameter {index}")
            key = f"optimizer {name} of parameter {index}"
            check_finite({key: saved}, {key: tensor})
            tensor.copy_(saved)


def restore_probe(directory: Path, probe: LinearProbe) -> None:
    """Load the checkpoint's probe into `probe`. If the checkpoint has no probe, `probe` stays as it is.

    Raises:
        ValueError: the checkpoint's probe is for other features or classes.
        WeightsNotFinite: it holds NaN or infinity.
    """
    state = load_file(directory / checkpoints.STATE)
    tensors = {k.removeprefix(PROBE_PREFIX): v for k, v in state.items() if k.startswith(PROBE_PREFIX)}
    if not tensors:
        return
    check_finite(tensors, probe.state_dict())
    try:
        probe.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{directory.name} does not fit the linear probe") from error


def restore_method(directory: Path, method: Method, state: Mapping[str, Tensor] | None = None) -> None:
    """Load the checkpoint's weights, teacher and bank into `method`, whose image_size may differ.

    Raises:
        ValueError: the checkpoint has another model.
        WeightsNotFinite: it holds NaN or infinity.
    """
    state = load_file(directory / checkpoints.STATE) if state is None else state
    tensors = {BACKBONE_PREFIX + k: v for k, v in load_file(directory / checkpoints.BACKBONE).items()}
    tensors |= {k.removeprefix(METHOD_PREFIX): v for k, v in state.items() if k.startswith(METHOD_PREFIX)}
    for path, part in method.named_modules():
        if isinstance(part, Backbone):  # the student's and the teacher's
            prefix = f"{path}."
            own = {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)}
            tensors |= {prefix + name: tensor for name, tensor in part.fitted(own).items()}
    check_finite(tensors, method.state_dict())
    try:
        method.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{directory.name} does not fit the model") from error


def restore_backbone(file: Path, backbone: Backbone) -> None:
    """Load exported weights into `backbone`. A classifier among them is left out.

    Raises:
        ValueError: the file is not a safetensors file, or its weights belong to another network; the message says
            what differs.
        WeightsNotFinite: they hold NaN or infinity; the message names the tensors.
    """
    try:
        saved = load_file(file)
    except Exception as error:  # safetensors raises errors of its own classes
        raise ValueError(f"{file.name} does not fit the backbone: it is not a safetensors file") from error
    try:
        load_weights(backbone, saved)
    except WeightsNotFinite as error:
        raise WeightsNotFinite(f"{file.name} is damaged: {error}") from error
    except ValueError as error:
        raise ValueError(f"{file.name} does not fit the backbone: {error}") from error


def _save(named: Mapping[str, Tensor], path: Path) -> None:
    try:
        save_file(dict(named), path, metadata={"format": "pt"})
    except SafetensorError as error:
        # The number of the system's error, such as that of a full disk, is only in the text.
        found = re.search(r"\(os error (\d+)\)", str(error))
        number = int(found[1]) if found else errno.EIO
        raise OSError(number, os.strerror(number)) from error


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()
