from __future__ import annotations

import mmap
import time

import pytest

from manyview_server.worker.training.progress import TrainerProgress, rss_bytes


def test_the_time_left_is_that_of_the_steps_left_at_the_rate_of_this_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = iter([100.0, 104.0, 106.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now_s))
    progress = TrainerProgress(step=10, num_steps=20)
    progress.start_steps()
    progress.step_done(epoch=1)
    assert (progress.stage, progress.step, progress.epoch, progress.eta_s) == ("training", 11, 1, 36.0)
    progress.step_done(epoch=2)
    assert progress.eta_s == pytest.approx(24.0, rel=0.01)


def test_the_time_left_follows_a_change_of_the_rate_within_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now_s)
    progress = TrainerProgress(num_steps=2_000)
    progress.start_steps()
    for step_s in [1.0] * 900 + [4.0] * 100:
        now_s += step_s
        progress.step_done(epoch=0)
        if progress.step == 900:
            assert progress.eta_s == pytest.approx(1_100)
    assert progress.eta_s == pytest.approx(4_000, rel=0.1)


def test_a_heartbeat_reports_all_of_the_progress() -> None:
    progress = TrainerProgress(step=1, num_steps=2, epoch=3, num_epochs=4, eta_s=5.0, done=6)
    progress.start("decoding", 3068)
    progress.images(1168)
    progress.images(32)
    beat = progress.heartbeat()
    assert (beat.stage, beat.step, beat.num_steps, beat.epoch, beat.num_epochs) == ("decoding", 1, 2, 3, 4)
    assert (beat.eta_s, beat.done) == (5.0, 6)
    assert (beat.images_done, beat.images_total) == (1200, 3068)
    assert beat.rss_bytes > 1e6


def test_each_stage_counts_its_own_images() -> None:
    progress = TrainerProgress()
    progress.start("decoding", 10)
    progress.images(10)
    progress.start("measuring the baseline", 4)
    progress.images(1)
    assert (progress.images_done, progress.images_total) == (1, 4)
    progress.start_steps()
    assert (progress.stage, progress.images_done, progress.images_total) == ("training", 0, 0)


def test_resident_memory_is_that_of_this_process() -> None:
    with mmap.mmap(-1, 120_000_000) as held:  # not from an allocator, which may have so much to give
        before = rss_bytes()
        for page in range(0, len(held), mmap.PAGESIZE):
            held[page] = 1
        assert rss_bytes() - before > 100_000_000


def test_a_step_that_waits_long_for_its_images_is_shown_as_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now_s)
    progress = TrainerProgress()
    progress.start_steps()
    progress.awaited(1, 9)  # another thread looks ahead, and nobody waits
    with progress.waiting_for_images():
        progress.awaited(3, 256)
        assert progress.heartbeat().stage == "training", "a short wait is part of a step"
        now_s += 1.0
        progress.awaited(120, 256)
        beat = progress.heartbeat()
        assert (beat.stage, beat.images_done, beat.images_total) == ("decoding", 120, 256)
        progress.awaited(120, 256)
        assert progress.heartbeat().done == beat.done, "the same count is no progress"
        progress.awaited(121, 256)
        assert progress.heartbeat().done == beat.done + 1
    beat = progress.heartbeat()
    assert (beat.stage, beat.images_done, beat.images_total) == ("training", 0, 0)
