"""docs/performance.md shows the figures that were measured."""

from __future__ import annotations

from pathlib import Path

from benchmarks.large_data import large_store, limited_server
from benchmarks.losses.__main__ import report as losses
from benchmarks.memory.__main__ import RESULTS as MEMORY
from benchmarks.memory.__main__ import report as memory
from benchmarks.results import Results
from benchmarks.subscribers.report import costs
from benchmarks.subscribers.report import report as subscribers
from benchmarks.uploads import images, report

PAGE = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()


def test_the_page_shows_the_tables_of_the_results() -> None:
    for benchmark in (report, large_store):
        assert f"\n{benchmark.document()}\n" in PAGE


def test_the_page_shows_the_losses_the_subscribers_and_the_memory() -> None:
    cells = Results("subscribers").cells()
    for text in (losses(), costs(cells), subscribers(cells), memory(MEMORY.cells())):
        assert text.strip("\n") in PAGE


def test_the_page_about_operation_shows_the_limited_server() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    assert f"\n{limited_server.document()}\n" in page


def test_a_ratio_is_that_of_the_medians_of_the_rounds() -> None:
    def turns(*seconds: float) -> list[dict[str, float]]:
        return [{"seconds": one, "client_cpu_s": 2 * one, "server_cpu_s": 3 * one} for one in seconds]

    values = {
        "num_images": 100,
        "num_bytes": 5_000_000,
        "echo": turns(1, 9, 1.2),
        "memory": turns(2, 2.4, 8),
        "folder": turns(3, 3, 3),
        "health": {"p50_ms": 1.0, "p99_ms": 2.0},
        "longest_callback_s": 0.012,
        "syncs": {"fsync": 1, "fdatasync": 4, "batches": 7},
        "server_peak_mib": 99.6,
    }
    cells = [{"key": {"images": "small", "code": "now"}, "values": values}]
    lines = report.document(cells).splitlines()
    assert lines[2] == "| small | now | plain stream | 83 | 4 | 1.00 | 24000 | 36000 |"
    assert lines[3] == "| small | now | from memory | 42 | 2 | 0.50 | 48000 | 72000 |"
    assert lines[-1] == "| small | now | 1.0 | 2.0 | 12 | 5 | 7 | 100 |"


def test_calls_to_few_and_to_many_rows_share_a_line() -> None:
    def call(median_ms: float) -> dict[str, float]:
        return {"median_ms": median_ms, "longest_visit_ms": median_ms / 2}

    cells = [
        {"values": {"GetDataset, few": call(1), "GetDataset, many": call(2), "open the store": call(3), "load": 1}}
    ]
    assert large_store.document(cells).splitlines()[2:] == [
        "| GetDataset | 1.0 | 2.0 | 0.5 | 1.0 |",
        "| open the store |  | 3.0 |  | 1.5 |",
    ]


def test_the_small_images_are_images_and_differ() -> None:
    from manyview_server.image_header import read_header

    found = [images.small_image(number) for number in range(3)]
    assert [len(image) for image in found] == [images.SMALL_BYTES] * 3
    assert len(set(found)) == 3
    assert {(header.width, header.height) for header in map(read_header, found)} == {(25, 25)}
