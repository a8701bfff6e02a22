from __future__ import annotations

import numpy as np

from manyview_server.store.images.shards import SNAPSHOT_DTYPE
from manyview_server.worker.job_images.findings import DarkImage, Finding, Findings, Unreadable


def rows(count: int) -> np.ndarray:
    made = np.zeros(count, SNAPSHOT_DTYPE)
    made["image_id"], made["height"], made["width"] = np.arange(100, 100 + count), 20, 30
    return made


def lost(row: int) -> Finding:
    return Finding(row, 100 + row, unreadable=Unreadable(image_id=100 + row, reason="IMAGE_LOST", message="gone"))


def test_sizes_are_those_of_the_headers_until_the_images_are_decoded() -> None:
    findings = Findings(rows(2), lambda _: None)
    findings.add(Finding(1, 101, 30, 20))
    assert findings.sizes.tolist() == [[20, 30], [30, 20]]
    assert (findings.num_read, findings.num_unreadable) == (1, 0)


def test_each_unreadable_image_is_reported_once() -> None:
    told: list[int] = []
    findings = Findings(rows(5), lambda image: told.append(image.image_id))
    for row in (3, 1, 3):
        findings.add(lost(row))
    findings.grow(rows(8))
    for row in (1, 7):
        findings.add(lost(row))
    assert told == [103, 101, 107]
    assert np.flatnonzero(findings.is_unreadable).tolist() == [1, 3, 7]
    assert (findings.num_unreadable, findings.reasons) == (3, {"IMAGE_LOST"})


def test_an_image_that_is_lost_after_it_was_decoded_is_unreadable_from_then_on() -> None:
    findings = Findings(rows(1), lambda _: None)
    findings.add(Finding(0, 100, 20, 30))
    findings.add(lost(0))
    assert (findings.num_read, findings.num_unreadable) == (0, 1)


def test_images_of_sixteen_bits_that_are_dark_are_listed_once() -> None:
    findings = Findings(rows(4), lambda _: None)
    for row, bits in ((0, 12), (1, 16), (2, 0), (3, 14), (0, 12)):
        findings.add(Finding(row, 100 + row, 20, 30, bits))
    assert findings.dark == [DarkImage(image_id=100, used_bits=12), DarkImage(image_id=103, used_bits=14)]
