"""Find where code would wait for the device. On the CPU, waiting costs nothing and is easily overlooked."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Waits(TorchDispatchMode):
    """Lists the operations that read a value from the device, and those whose size its values decide."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal", "item")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in self.WAITING:
            self.found.append(name)
        elif name == "index" and any(index is not None and index.dtype.itemsize == 1 for index in args[1]):
            self.found.append("index by a mask")
        return func(*args, **(kwargs or {}))
