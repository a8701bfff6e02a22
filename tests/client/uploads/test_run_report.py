"""The numbers and names of a report are those of this run, and add up with those of earlier runs."""

from __future__ import annotations

from manyview._types.images import ImageError
from manyview._uploads.encoded_image import EncodedImage
from manyview._uploads.run_report import RunReport
from manyview._uploads.window import OutgoingBatch
from manyview.v1 import dataset_service_pb2 as pb
from manyview.v1 import types_pb2


def batch(*keys: str) -> OutgoingBatch:
    return OutgoingBatch(1, [], keys, tuple("cat" for _ in keys), 0, b"")


def test_the_report_has_the_outcomes_of_this_run_and_the_numbers_of_earlier_ones() -> None:
    collected = RunReport()
    collected.before = pb.Upload(num_images=4, num_stored=3, num_rejected=1)
    collected.add_image(EncodedImage("gone", b"", "", ImageError(reason="UNREADABLE_FILE", message="gone")))
    collected.add_image(EncodedImage("large", b"jpeg", "cat", is_recompressed=True))
    refused = types_pb2.ImageError(reason="HEADER_CORRUPT", message="cut off")
    results = [
        pb.ImageResult(outcome=pb.ImageResult.OUTCOME_STORED),
        pb.ImageResult(outcome=pb.ImageResult.OUTCOME_REJECTED, error=refused),
        pb.ImageResult(outcome=pb.ImageResult.OUTCOME_DUPLICATE, label_differs=True, first_key="a", first_label="dog"),
    ]
    collected.add_ack(batch("large", "bad", "copy"), pb.BatchAck(number=1, results=results))
    upload = pb.Upload(num_images=7, num_stored=4, num_duplicates=1, num_rejected=2)
    report = collected.finished("id", upload, ())
    assert (report.num_stored, report.num_duplicates, report.num_rejected) == (1, 1, 2)
    assert (report.resumed_from, report.num_rejected_before, report.num_found) == (4, 1, 8)
    assert [(image.key, image.was_sent) for image in report.rejected] == [("gone", False), ("bad", True)]
    assert [(conflict.key, conflict.first_label) for conflict in report.label_conflicts] == [("copy", "dog")]
    assert (report.num_recompressed, report.recompressed) == (1, ("large",))
    assert (collected.has_unsent, collected.num_rejected) == (True, 2)


def test_many_recompressed_images_are_counted_and_the_first_are_named() -> None:
    collected = RunReport()
    for number in range(30):
        collected.add_image(EncodedImage(str(number), b"jpeg", "", is_recompressed=True))
    report = collected.finished("id", pb.Upload(num_images=30, num_stored=30), ())
    assert (report.num_recompressed, report.recompressed[-1], len(report.recompressed)) == (30, "19", 20)
