"""Measure each loss beside lightly's: value, gradient, and what a training does with a bank or a center afterwards.

It needs the environment of `make parity`. Each measurement has a process of its own, in which both sides take turns;
the peak of memory has a process for each side. The same calls compare values and gradients: in float32 both sides must
agree to 1e-5, and in bfloat16 ours must be nearer to float64 than 1e-2 and than lightly's, unless it is within 1e-3.
In bfloat16 the projections are bfloat16 and both sides run under autocast, as in a training.

    .tools/parity/bin/python -m benchmarks.losses --minutes 9    # measure what is missing, as long as there is time
    .tools/parity/bin/python -m benchmarks.losses --report
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from benchmarks.results import Results, table
from torch import Tensor

if TYPE_CHECKING:
    from benchmarks.losses.cases import Case, Loss

RESULTS = Results("losses")
BATCHES, PRECISIONS, THREADS = (256, 1024), ("float32", "bfloat16"), (1, 2)
WITH_THREADS = {"NT-Xent, bank of 65,536"}
SAMPLE_S, CELL_S, FEWEST_SAMPLES = 0.05, 3.0, 5
MIB = 1 << 20
FLOAT32_AGREES, BFLOAT16_AGREES, BFLOAT16_EXACT = 1e-5, 1e-2, 1e-3


def main() -> None:
    """Measure the missing cells, and print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9, help="begin no cell after so many minutes")
    parser.add_argument("--only", default="", help="only losses whose name has this text")
    parser.add_argument("--batch", type=int, choices=BATCHES)
    parser.add_argument("--report", action="store_true", help="only print what there is")
    arguments = parser.parse_args()
    ends = time.monotonic() + 60 * arguments.minutes
    for key in () if arguments.report else keys():
        wanted = arguments.only in key["loss"] and arguments.batch in (None, key["batch"])
        if wanted and RESULTS.find(**key) is None and time.monotonic() < ends:
            RESULTS.add(key, cell(**key))
    print(report())


def cases() -> dict[str, Case]:
    """Return the losses by name. The import needs lightly, which a report does not."""
    from benchmarks.losses.cases import CASES

    return CASES


def keys() -> Iterator[dict[str, Any]]:
    """Yield the keys of all cells, the smaller batch first. The bank alone is measured with two threads as well."""
    for batch, loss, precision, threads in product(BATCHES, cases(), PRECISIONS, THREADS):
        if threads == 1 or loss in WITH_THREADS:
            yield {"loss": loss, "batch": batch, "precision": precision, "threads": threads}


def cell(loss: str, batch: int, precision: str, threads: int) -> dict[str, Any]:
    """Measure one cell."""
    values: dict[str, Any] = in_a_process(compared, loss, batch, precision, threads)
    for side in ("ours", "lightly"):
        values[f"{side}_peak_mib"] = in_a_process(peak_mib, loss, batch, precision, threads, side)
    return values


def in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a call in a process of its own. Forking is safe: this process computes nothing."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=lambda: theirs.send(function(*arguments)))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise SystemExit(f"{arguments}: the measurement failed") from None
    finally:
        process.join()


def step(loss: Loss, leaves: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return the value and the gradients of a loss."""
    bfloat16 = leaves[0].dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        value = loss(*leaves)
    return value.detach(), list(torch.autograd.grad(value, leaves))


def inputs(case: Case, batch: int, precision: str) -> list[Tensor]:
    """Return leaves in the type that a training of this precision gives to its loss."""
    return [each.to(getattr(torch, precision)).requires_grad_() for each in case.inputs(batch)]


def compared(name: str, batch: int, precision: str, threads: int) -> dict[str, Any]:
    """Compare the results of both sides, then their times."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    case = cases()[name]
    leaves = inputs(case, batch, precision)
    sides = {"ours": case.ours(), "lightly": case.lightly()}
    found = {side: step(loss, leaves) for side, loss in sides.items()}
    values = agreement(case, leaves, found, precision)
    repeats = {side: max(1, round(SAMPLE_S / seconds(loss, leaves)[0])) for side, loss in sides.items()}
    samples: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    began, busy, own = time.monotonic(), machine_busy_s(), time.process_time()
    while len(samples["ours"]) < FEWEST_SAMPLES or time.monotonic() - began < CELL_S:
        for side, loss in sides.items():
            samples[side].append(seconds(loss, leaves, repeats[side]))
    took_s = time.monotonic() - began
    values["others"] = max(0.0, machine_busy_s() - busy - (time.process_time() - own)) / took_s
    for side, both in samples.items():
        values[f"{side}_ms"] = 1e3 * statistics.median(wall for wall, _ in both)
        values[f"{side}_cpu_ms"] = 1e3 * statistics.median(cpu for _, cpu in both)
    return values | {"samples": len(samples["ours"])}


def seconds(loss: Loss, leaves: list[Tensor], repeats: int = 1) -> tuple[float, float]:
    """Return the wall and CPU seconds of a loss with its gradient."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        step(loss, leaves)
    return (time.perf_counter() - wall) / repeats, (time.process_time() - cpu) / repeats


def agreement(
    case: Case, leaves: list[Tensor], found: dict[str, tuple[Tensor, list[Tensor]]], precision: str
) -> dict[str, Any]:
    """Return how far value and gradient of both sides are from those in float64, and of ours from lightly's. Raise
    AssertionError if ours are too far.
    """
    exact = step(case.ours(), [leaf.detach().double().requires_grad_() for leaf in leaves])
    errors = {f"{side}_error": list(distances(result, exact)) for side, result in found.items()}
    between = list(distances(found["ours"], found["lightly"]))
    for at, what in enumerate(("value", "gradient")):
        ours, theirs = errors["ours_error"][at], errors["lightly_error"][at]
        if precision == "float32":
            assert between[at] <= FLOAT32_AGREES + ours + theirs, f"{what}s differ by {between[at]}"
            assert ours <= FLOAT32_AGREES, f"the {what} is {ours} from float64"
        else:
            assert ours <= max(BFLOAT16_EXACT, min(BFLOAT16_AGREES, theirs)), f"the {what}: {ours}, lightly's {theirs}"
    return errors | {"difference": between}


def distances(found: tuple[Tensor, list[Tensor]], expected: tuple[Tensor, list[Tensor]]) -> Iterator[float]:
    """Yield the relative distance of the values, and that of the gradients."""
    yield (found[0].double() - expected[0].double()).abs().item() / expected[0].abs().item()
    ours, theirs = (torch.cat([g.double().flatten() for g in side[1]]) for side in (found, expected))
    yield ((ours - theirs).norm() / theirs.norm()).item()


def peak_mib(name: str, batch: int, precision: str, threads: int, side: str) -> float:
    """Return the most memory that a side holds beyond inputs and state."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    case = cases()[name]
    step(case.ours() if side == "ours" else case.lightly(), inputs(case, 2, precision))  # loads the kernels
    loss = case.ours() if side == "ours" else case.lightly()
    leaves = inputs(case, batch, precision)
    before = status_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    for _ in range(3):
        step(loss, leaves)
    return status_mib("VmHWM") - before


def status_mib(field: str) -> float:
    """Return a field of this process's status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024 / MIB


def machine_busy_s() -> float:
    """Return the CPU seconds that all programs have used since the machine started."""
    fields = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def report() -> str:
    """Return all cells as the table of docs/performance.md. The milliseconds are CPU time, and `ratio` is that of wall
    time.
    """
    rows = [["loss", "batch", "type", "threads", "ms", "lightly", "ratio", "CPU ratio", "MiB", "lightly", "others"]]
    for one in sorted(RESULTS.cells(), key=lambda cell: list(cell["key"].values())):
        key, values = one["key"], one["values"]
        rows.append(
            [
                *(key["loss"], f"{key['batch']:,}", key["precision"], str(key["threads"])),
                *(f"{values[name]:.1f}" for name in ("ours_cpu_ms", "lightly_cpu_ms")),
                *(f"{values[f'lightly_{unit}'] / values[f'ours_{unit}']:.2f}" for unit in ("ms", "cpu_ms")),
                *(f"{values[f'{side}_peak_mib']:.0f}" for side in ("ours", "lightly")),
                f"{values['others']:.1f}",
            ]
        )
    return table(rows)


if __name__ == "__main__":
    main()
