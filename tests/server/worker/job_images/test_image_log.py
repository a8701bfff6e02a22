from __future__ import annotations

import numpy as np
import pytest

from manyview_server.messages.training import ImageUnreadable, LogWritten
from manyview_server.store.images.shards import SNAPSHOT_DTYPE
from manyview_server.worker.job_images import image_log
from manyview_server.worker.job_images.findings import Finding, Findings, Unreadable
from manyview_server.worker.job_images.image_log import ImageLog
from support.learning.training import Sent


def lost(row: int) -> Finding:
    return Finding(row, row, unreadable=Unreadable(image_id=row, reason="IMAGE_LOST", message="gone"))


def test_unreadable_images_are_reported_one_by_one_up_to_a_limit_and_counted_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(image_log, "MAX_UNREADABLE_REPORTED", 3)
    sent = Sent()
    log = ImageLog(sent)
    findings = Findings(np.zeros(20, SNAPSHOT_DTYPE), log.add)
    log.write(findings, 0, 0)
    for row in range(5):
        findings.add(lost(row))
    log.write(findings, 7, 2)
    log.write(findings, 8, 2)
    for row in range(5, 20):
        findings.add(Finding(row, row, 1, 1) if row < 19 else lost(row))
    log.write(findings, 9, 3)
    assert [image.image_id for image in sent.of(ImageUnreadable)] == [0, 1, 2]
    assert [(line.level, line.step, line.epoch, line.text) for line in sent.of(LogWritten)] == [
        ("warning", 7, 2, "5 images cannot be read and are left out; 5 of 20 were looked at so far"),
        ("warning", 9, 3, "6 images cannot be read and are left out"),
    ]


def test_dark_images_are_counted_in_one_line_with_the_factor_that_helps() -> None:
    sent = Sent()
    log = ImageLog(sent)
    findings = Findings(np.zeros(2, SNAPSHOT_DTYPE), log.add)
    findings.add(Finding(0, 255, 1, 1, 12))
    findings.add(Finding(1, 256, 1, 1, 10))
    log.write(findings, 0, 0)
    log.write(findings, 1, 0)
    (line,) = sent.of(LogWritten)
    assert line.text == (
        "2 images have 16 bits per channel and no value above 4,095 of 65,535, which is nearly black to the network: "
        "multiply the values by 16 and upload them again; the first such image is id:00000000000000ff"
    )
