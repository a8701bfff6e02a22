"""A pretended GPU: tensors that report cuda:0 as their device, while their numbers are in the CPU's memory.

Inside of `pretending()` code takes the paths that it takes for a GPU. A plain tensor among its tensors is an error, as
on a real one, and `Pretence.waits` lists every operation at which the host would have waited for the device.

Autograd sees the meta device beneath, because torch's engine asks for a real stream on a CUDA device.
"""

from __future__ import annotations

import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("cuda:0")
BENEATH = torch.device("meta")
COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
SOURCES = str(Path(__file__).parents[3] / "server")
READS_VALUES = (
    {"_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "nonzero_numpy", "masked_select"}
    | {"_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount", "allclose"}
    | {"linalg_eigh", "_linalg_eigh", "linalg_eigvalsh", "_linalg_svd", "_linalg_check_errors"}
)
"""Operations whose result, or its shape, the host must know."""
TAKES_NO_NUMBER_OF_THE_HOST = {"cat", "stack", "index", "index_put", "index_put_", "index_select", "where", "gather"}
"""Operations for which even a 0-d tensor of the CPU is an error, or is copied to the device with a wait."""


class OnDevice(Tensor):
    """A tensor on the pretended device; `host` holds its numbers."""

    host: Tensor
    pretence: Pretence

    @staticmethod
    def __new__(cls, host: Tensor, pretence: Pretence) -> OnDevice:
        wrapper: OnDevice = torch.Tensor._make_wrapper_subclass(
            cls,
            host.shape,
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=BENEATH,
        )
        wrapper.host, wrapper.pretence = host, pretence
        return wrapper

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return DEVICE

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @property
    def is_meta(self) -> bool:  # type: ignore[override]
        return False

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"OnDevice({tuple(self.shape)}, {self.dtype})"

    def pin_memory(self, *_: object) -> Tensor:
        raise RuntimeError("cannot pin a tensor of a GPU: only dense CPU tensors can be pinned")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, OnDevice)]
        return tensors[0].pretence.run(func, args, dict(kwargs or {}))


class Pretence:
    """A record of the operations on the device."""

    def __init__(self) -> None:
        self.waits: list[str] = []
        """The places where the host would have waited: the operation, and the line of our code that called it."""

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run `func` on the numbers. Its results are on the device if `func` runs there."""
        flat = tree_flatten((args, kwargs))[0]
        ours = any(isinstance(each, OnDevice) for each in flat)
        target = kwargs.get("device")
        name = func.overloadpacket.__name__
        if not ours and not _is_device(target):
            return func(*args, **kwargs)
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), COMPOSITE):
            with _Dispatch(self):  # in inference mode such an operation arrives whole
                return func.decompose(*args, **kwargs)
        if torch.is_inference_mode_enabled():
            with torch.inference_mode(False), torch.no_grad(), _Dispatch(self):
                return func(*args, **kwargs)
        self._watch(name, func, flat, args, kwargs)
        to_host = name == "_to_copy" and target is not None and not _is_device(target)
        if name == "copy_" and not isinstance(args[0], OnDevice):
            to_host = True
        out = func(*tree_map(_host, args), **tree_map(_host, kwargs))
        if to_host:
            return args[0] if name == "copy_" else out
        out = tree_map(lambda each: OnDevice(each, self) if type(each) is Tensor else each, out)
        return return_and_correct_aliasing(func, args, kwargs, out)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let operations of this thread that name the device run on it."""
        with _Factories(), _Dispatch(self):
            yield

    def _watch(self, name: str, func: Any, flat: list[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        plain = [each for each in flat if isinstance(each, Tensor) and not isinstance(each, OnDevice)]
        if name in READS_VALUES or _chooses_by_mask(name, args):
            self._wait(name)
        elif name in ("_to_copy", "copy_"):
            crosses = plain if name == "copy_" else _is_device(kwargs.get("device")) != (not plain)
            blocking = not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
            if crosses and blocking and ("device" in kwargs or name == "copy_"):
                self._wait(name)
        elif name.endswith("_like"):  # of the shape alone
            return
        elif any(each.ndim > 0 or name in TAKES_NO_NUMBER_OF_THE_HOST for each in plain):
            shapes = [tuple(each.shape) for each in plain]
            raise RuntimeError(f"{func}: expected all tensors on {DEVICE}, but {shapes} are on the CPU")

    def _wait(self, name: str) -> None:
        lines = [line for line in traceback.extract_stack() if line.filename.startswith(SOURCES)]
        where = f"{Path(lines[-1].filename).name}:{lines[-1].lineno}" if lines else "elsewhere"
        self.waits.append(f"{name} at {where}")


class _Factories(TorchFunctionMode):
    """Replace the name of the pretended device, in any argument, by that of the real one."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.device:
            return func(*args, **(kwargs or {}))
        kwargs = {name: _beneath(value) for name, value in (kwargs or {}).items() if name != "pin_memory"}
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == BENEATH:
            del kwargs["device"]
            return func(*args, **kwargs).to(BENEATH)
        return func(*tree_map(_beneath, args), **kwargs)


class _Dispatch(TorchDispatchMode):
    def __init__(self, pretence: Pretence) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._pretence = pretence

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return self._pretence.run(func, args, dict(kwargs or {}))


class _Event:
    def __init__(self, enable_timing: bool = False) -> None: ...

    def record(self, stream: object = None) -> None:
        assert stream == DEVICE, "an event without its stream is recorded on the current device, whatever that is"

    def synchronize(self) -> None: ...

    def elapsed_time(self, later: _Event) -> float:
        return 1.0


@contextmanager
def pretending() -> Iterator[Pretence]:
    """While the block runs, this thread and the threads that it starts have a device cuda:0."""
    pretence = Pretence()
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(torch.cuda, "Event", _Event)
        patch.setattr(torch.cuda, "current_stream", lambda device=None: device)
        for name in ("memory_allocated", "max_memory_allocated"):
            patch.setattr(torch.cuda, name, lambda device=None: 1)
        for name in ("synchronize", "reset_peak_memory_stats", "set_sync_debug_mode"):
            patch.setattr(torch.cuda, name, lambda argument=None: None)
        patch.setattr(torch.Tensor, "pin_memory", lambda self, *_: self)
        patch.setattr(torch.cuda, "mem_get_info", lambda device=None: (1 << 40, 1 << 40))
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message=".*CUDA is not available")  # autocast is left off then
        run = threading.Thread.run

        def run_with_the_device(thread: threading.Thread) -> None:
            with pretence.entered():
                run(thread)

        patch.setattr(threading.Thread, "run", run_with_the_device)
        stack.enter_context(pretence.entered())
        yield pretence


def _is_device(device: Any) -> bool:
    return device is not None and torch.device(device).type in (DEVICE.type, BENEATH.type)


def _host(value: Any) -> Any:
    if isinstance(value, OnDevice):
        return value.host
    return torch.device("cpu") if isinstance(value, torch.device) else value


def _beneath(value: Any) -> Any:
    named = isinstance(value, torch.device) or (isinstance(value, str) and value.startswith("cuda"))
    return BENEATH if named and torch.device(value).type == "cuda" else value


def _chooses_by_mask(name: str, args: tuple[Any, ...]) -> bool:
    indexes = args[1] if name in ("index", "index_put", "index_put_") else ()
    return any(isinstance(each, Tensor) and each.dtype in (torch.bool, torch.uint8) for each in indexes)
