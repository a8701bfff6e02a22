"""Sections run on a pretended GPU: see `pretend_device`."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
import torch
from benchmarks.gpu.bench import CPU, Bench, relative_error
from benchmarks.gpu.plan import SECTIONS
from benchmarks.gpu.sections import Record

from support.learning.pretend_device import DEVICE, pretending


def bench_on(device: torch.device, scratch: Path) -> tuple[Bench, Record]:
    record = Record()
    return Bench(record, time.monotonic() + 60, device=device, quick=True, scratch=scratch), record


@pytest.mark.parametrize("name", ["losses", "optimizers", "selection", "bank", "updates"])
def test_a_section_takes_the_paths_of_a_gpu(name: str, tmp_path: Path) -> None:
    section = next(each for each in SECTIONS if each.name == name)
    with pretending():
        bench, record = bench_on(DEVICE, tmp_path)
        section.function()(bench)
    assert record.checks or record.figures
    assert [check for check in record.checks if not check["ok"]] == []
    assert record.skipped == []


def test_a_difference_beyond_the_tolerance_and_nan_never_pass(tmp_path: Path) -> None:
    bench, record = bench_on(CPU, tmp_path)
    expected = torch.tensor([3.0, 4.0])
    for found in (
        expected * 1.0005,
        expected * 1.01,
        expected * torch.nan,
        expected[:1],
        torch.tensor([3.0, torch.inf]),
    ):
        bench.close("lengths", found, expected, 1e-3, "a test")
    assert [check["ok"] for check in record.checks] == [True, False, False, False, False]
    assert math.isnan(relative_error(expected * torch.nan, expected))


def test_only_equal_bits_of_one_type_are_the_same(tmp_path: Path) -> None:
    bench, record = bench_on(CPU, tmp_path)
    expected = torch.tensor([1.0, 2.0])
    for found in (expected.clone(), torch.tensor([1.0, 2.0000002]), expected.double(), expected[:1]):
        bench.same("bits", found, expected)
    assert [check["ok"] for check in record.checks] == [True, False, False, False]
