from __future__ import annotations

import math

from manyview._cli.watching.series import MOST, Series, buckets, sparkline


def test_a_sparkline_spans_least_to_greatest_and_leaves_out_what_is_not_finite() -> None:
    assert sparkline([0.0, math.nan, 7.0]) == "▁ █"
    assert sparkline([math.inf]) == ""
    assert sparkline([2.0, 2.0]) == "▁▁"


def test_many_values_are_averaged_into_few_columns() -> None:
    assert buckets([1.0, 2.0, 3.0], 5) == [1.0, 2.0, 3.0]
    assert buckets([1.0, 3.0, 5.0, 7.0], 2) == [2.0, 6.0]
    assert len(buckets([1.0] * 101, 40)) == 40


def test_a_series_shows_all_of_a_long_job_in_bounded_memory() -> None:
    series = Series()
    for number in range(20 * MOST):
        series.add(float(number))
    assert series.newest == 20 * MOST - 1
    assert len(series._values) < MOST
    assert series.sparkline(8) == "▁▂▃▄▅▆▇█"
