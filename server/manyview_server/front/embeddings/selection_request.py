"""Read the arguments of SelectSamples, and check what can be checked without looking at the data set."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from manyview.v1 import embed_service_pb2 as pb
from manyview_server.front.embeddings.queries import QueryReader, read_refs
from manyview_server.front.embeddings.table_requests import TableNames, read_names, read_unit, read_version
from manyview_server.front.rpc import resource_names as names
from manyview_server.front.rpc.violation_collector import ViolationCollector
from manyview_server.store.records import ImageRef

STRATEGIES = ("random", "coreset", "minimum_distance", "typicality", "similarity")
DEFAULT_NEIGHBORS = 20
MAX_NEIGHBORS = 1_000
SHARES = {pb.ClassBalance.SHARE_EQUAL: "equal", pb.ClassBalance.SHARE_PROPORTIONAL: "proportional"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """A strategy of `messages.SelectRows` with its parameters. Parameters that it does not have are 0."""

    name: str
    seed: int = 0
    distance: float = 0.0
    num_neighbors: int = 0
    queries: tuple[ImageRef, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionRequest:
    """A valid request."""

    dataset_id: str
    version: int
    names: TableNames | None
    """None if the strategy uses no embeddings."""
    unit: bool
    strategy: Strategy
    count: int
    chosen: tuple[ImageRef, ...]
    balance: str
    budgets: Mapping[str, int] = field(default_factory=dict)


def read_selection(request: pb.SelectSamplesRequest, queries: QueryReader) -> SelectionRequest:
    """Read a request. Raises InvalidArgument with all violations."""
    violations = ViolationCollector()
    strategy = _strategy(request, queries, violations)
    balance, budgets = _balance(request, violations)
    _check_count(request, strategy.name, budgets, violations)
    source = None
    if strategy.name == "random":
        _refuse_embeddings(request, violations)
    else:
        source = read_names(request, request.output, violations)
    read = SelectionRequest(
        dataset_id=violations.read(lambda: names.dataset_id(request.dataset, "dataset"), "") if source is None
        else source.dataset_id,
        version=read_version(request.version, violations) if source is None else source.version,
        names=source,
        unit=read_unit(request.metric, violations),
        strategy=strategy,
        count=request.count or sum(budgets.values()),
        chosen=tuple(read_refs(request.chosen, "chosen", violations)),
        balance=balance,
        budgets=budgets,
    )  # fmt: skip
    violations.raise_if_any()
    return read


def _strategy(request: pb.SelectSamplesRequest, queries: QueryReader, violations: ViolationCollector) -> Strategy:
    name = request.WhichOneof("strategy")
    match name:
        case "random":
            return Strategy(name=name, seed=_seed(request.random.seed, name, violations))
        case "coreset":
            return Strategy(name=name, seed=_seed(request.coreset.seed, name, violations))
        case "minimum_distance":
            distance = request.minimum_distance.distance
            if not 0 < distance < math.inf:
                violations.add("minimum_distance.distance", f"{distance} must be finite and above 0")
            return Strategy(name=name, distance=distance, seed=_seed(request.minimum_distance.seed, name, violations))
        case "typicality":
            k = request.typicality.num_neighbors
            if not 0 <= k <= MAX_NEIGHBORS:
                violations.add(
                    "typicality.num_neighbors", f"{k} must be from 1 to {MAX_NEIGHBORS:,}, or 0 for {DEFAULT_NEIGHBORS}"
                )
            return Strategy(name=name, num_neighbors=k or DEFAULT_NEIGHBORS)
        case "similarity":
            stored = queries.read(request.similarity, "similarity.", violations)
            return Strategy(name=name, queries=tuple(stored))
    violations.add("strategy", f"is not set; set exactly one of {', '.join(STRATEGIES)}")
    return Strategy(name="")


def _seed(seed: int, strategy: str, violations: ViolationCollector) -> int:
    if seed < 0:
        violations.add(f"{strategy}.seed", f"{seed} is less than 0")
    return seed


def _balance(request: pb.SelectSamplesRequest, violations: ViolationCollector) -> tuple[str, dict[str, int]]:
    """Read how the count is divided among labels, and the counts of labels that are given."""
    if not request.HasField("balance"):
        return "", {}
    share, counts = request.balance.share, dict(request.balance.counts)
    if bool(share) == bool(counts):
        state = "share and counts are both set" if share else "neither share nor counts is set"
        violations.add("balance", f"{state}; set exactly one of them")
    if share and share not in SHARES:
        violations.add("balance.share", f"{share} is not a value of this enum")
    for label, count in sorted(counts.items()):
        if count < 1:
            violations.add(f"balance.counts[{names.shown(label)}]", f"{count} is less than 1")
    return ("given", counts) if counts else (SHARES.get(share, ""), {})


def _check_count(
    request: pb.SelectSamplesRequest, strategy: str, budgets: Mapping[str, int], violations: ViolationCollector
) -> None:
    if request.count < 0:
        violations.add("count", f"{request.count} is less than 0")
    elif budgets and request.count:
        violations.add("count", f"{request.count} must be 0, because balance.counts says how many")
    elif not budgets and not request.count and (strategy != "minimum_distance" or request.HasField("balance")):
        violations.add("count", "0 must be at least 1")


def _refuse_embeddings(request: pb.SelectSamplesRequest, violations: ViolationCollector) -> None:
    """Refuse fields that have no effect on a strategy without embeddings."""
    given = {"model": names.shown(request.model), "output": str(request.output), "metric": str(request.metric)}
    for name, value in given.items():
        if getattr(request, name):
            violations.add(name, f"{value} must be empty, because random uses no embeddings")
