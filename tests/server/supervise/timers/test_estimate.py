from __future__ import annotations

from manyview_server.supervise.timers.estimate import device_words


def test_a_device_has_a_word() -> None:
    assert [device_words(device) for device in ("cpu", "cuda:1")] == ["this CPU", "this GPU"]
