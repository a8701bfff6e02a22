from __future__ import annotations

import pytest
from benchmarks.simclr.window import Moment, between


def test_the_images_of_a_window_share_its_time_and_others_what_is_left_of_the_machine() -> None:
    began = Moment(wall_s=10.0, side_cpu_s=100.0, machine_cpu_s=1000.0)
    ended = Moment(wall_s=14.0, side_cpu_s=106.0, machine_cpu_s=1007.0)
    assert between(began, ended, 20) == pytest.approx(
        {"images_per_second": 5.0, "cpu_ms_per_image": 300.0, "others": 0.25}
    )


def test_a_process_counts_its_own_time() -> None:
    began = Moment()
    while Moment().side_cpu_s - began.side_cpu_s < 0.02:
        pass
    assert between(began, Moment(), 1)["cpu_ms_per_image"] >= 20
