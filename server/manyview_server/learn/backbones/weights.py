"""Load weights from elsewhere into a backbone, completely or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from manyview_server.learn.backbones.backbone import Backbone

COUNTER = "num_batches_tracked"
"""A counter of batch norms. Files that were not written by torch may lack it, and nothing depends on it."""
SHOWN = 4
PREFIX_PARTS = ("module", "model", "network", "backbone", "encoder", "encoder_q", "student")
"""Trainers put these before the names of a network's tensors. Several can follow one another."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The way in which the names of a file's tensors became those of the network."""

    prefix: str = ""
    """All names of the network had this before them, such as "module.encoder_q."."""
    num_others: int = 0
    """The number of tensors without this prefix. They were left out, because they belong to another network."""

    @property
    def words(self) -> str:
        """Both in words; empty if the names were those of the network."""
        if not self.prefix:
            return ""
        others = f"; tensors without this prefix, which are left out: {self.num_others:,}" if self.num_others else ""
        return f"its names start with {self.prefix!r}{others}"


class WeightsNotFinite(ValueError):
    """Tensors hold NaN or infinity. A network with them returns no finite value for any image."""


def check_finite(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Raise WeightsNotFinite if tensors are not finite, or are not finite in the type in which the network holds them.

    Args:
        tensors: what was read.
        own: the network's tensors by the same names. A tensor that is not finite there, such as a mask, is exempt.
    """
    damaged = []
    for name, tensor in tensors.items():
        wanted = own.get(name)
        if wanted is None or not wanted.is_floating_point():
            continue
        finite = torch.isfinite(tensor.to(wanted.device, wanted.dtype))
        if not finite.all() and torch.isfinite(wanted).all():
            damaged.append(f"{name} ({int((~finite).sum()):,} of {finite.numel():,} values)")
    if damaged:
        raise WeightsNotFinite(f"the weights are not finite: {_few(damaged)}")


def load_weights(backbone: Backbone, tensors: Mapping[str, Tensor]) -> Loaded:
    """Load `tensors` into `backbone`, without a prefix of their names that a trainer left, and without a classifier and
    other layers that the backbone does not have (see `Backbone.fitted`).

    Raises:
        ValueError: they belong to another network, or are quantized. The message says which names are missing or
            unexpected, or have another shape. The backbone is unchanged.
        WeightsNotFinite: some are NaN or infinite. The message names them. The backbone is unchanged.
    """
    own = backbone.state_dict()
    prefix = find_prefix(tensors, own)
    bare = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    found = backbone.fitted(bare)
    if quantized := [
        f"{name} {_type_name(found[name])}" for name in own if name in found and _is_quantized(found[name], own[name])
    ]:
        raise ValueError(f"the weights must be float32, float16 or bfloat16, not quantized: {_few(quantized)}")
    missing = [name for name in own if name not in found and not name.endswith(COUNTER)]
    unexpected = [name for name in found if name not in own]
    shapes = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in found and found[name].shape != tensor.shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("with another shape", shapes))
    if problems := "; ".join(f"{kind}: {_few(names)}" for kind, names in kinds if names):
        raise ValueError(f"the weights belong to another network: {problems}{_hint(tensors, own, prefix)}")
    check_finite(found, own)
    backbone.load_state_dict({**own, **found})
    return Loaded(prefix=prefix, num_others=len(tensors) - len(bare))


def find_prefix(names: Iterable[str], own: Collection[str]) -> str:
    """Return the prefix, made of `PREFIX_PARTS`, with which most of `own` are among `names`; "" if that is none."""
    counts: Counter[str] = Counter()
    for name in names:
        prefix, rest = "", name
        while True:
            counts[prefix] += rest in own
            part, dot, behind = rest.partition(".")
            if not dot or part not in PREFIX_PARTS:
                break
            prefix, rest = f"{prefix}{part}.", behind
    return max(counts, key=lambda prefix: (counts[prefix], -len(prefix)), default="")


def _hint(names: Collection[str], own: Collection[str], prefix: str) -> str:
    """Return a hint for weights that would fit under another prefix, which is not one of those that are removed."""
    if prefix:
        return f" (names without their prefix {prefix!r})"
    last = max(own, key=len)
    others = [name.removesuffix(last) for name in names if name.endswith(f".{last}")]
    fits = [other for other in others if all(other + name in names for name in own if not name.endswith(COUNTER))]
    return f"; without {' or '.join(map(repr, fits))} before their names they would fit" if fits else ""


def _is_quantized(tensor: Tensor, own: Tensor) -> bool:
    return own.is_floating_point() and (not tensor.is_floating_point() or tensor.element_size() == 1)


def _type_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _few(names: Iterable[str]) -> str:
    names = list(names)
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")
