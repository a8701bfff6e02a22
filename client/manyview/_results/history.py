"""The scalars of a job as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from manyview import _convert
from manyview._arguments import did_you_mean
from manyview._transport.paging import pages
from manyview._transport.rpcs import Rpcs
from manyview.v1 import metrics_service_pb2 as pb

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PLACE = frozenset({"sequence", "time", "attempt", "step", "epoch"})
"""The fields of a row that are not scalars."""


@dataclass(frozen=True, kw_only=True)
class History:
    """A job's scalars, one row for each time that some were logged, without rows that a rollback superseded.

    `rows` are dicts with sequence, time, attempt, step, epoch and the scalars. `history["loss"]` is a column, shape
    (rows,). It is NaN in rows that have no such scalar.
    """

    rows: Sequence[Mapping[str, Any]] = field(repr=False)
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        import numpy as np

        if name not in (*self.names, "sequence", "step", "epoch", "attempt"):
            hint = did_you_mean(name, self.names) or f"; known: {', '.join(self.names)}"
            raise KeyError(f"there is no scalar named {name!r}{hint}")
        return np.array([row.get(name, np.nan) for row in self.rows], dtype=np.float64)


def query(rpcs: Rpcs, job: str, *, names: Sequence[str] | None = None, max_rows: int | None = None) -> History:
    """Return the job's scalars as a table."""

    def fetch(token: str) -> pb.QueryMetricsResponse:
        return rpcs.query_metrics(
            pb.QueryMetricsRequest(
                train_job=job, metric_names=names or (), max_rows=max_rows, page_size=10_000, page_token=token
            )
        )

    rows = [_row(row) for page in pages(fetch) for row in page.rows]
    found = dict.fromkeys(name for row in rows for name in row if name not in _PLACE)
    return History(rows=rows, names=tuple(found))


def _row(row: pb.MetricsRow) -> Mapping[str, Any]:
    place = {"sequence": row.sequence, "time": _convert.time(row.time), "attempt": row.attempt}
    return {**place, "step": row.step, "epoch": row.epoch, **dict(sorted(row.values.items()))}
