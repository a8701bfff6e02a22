"""The report of an upload as text: the numbers first, then reasons with a few names each."""

from __future__ import annotations

from dataclasses import replace

import manyview
from manyview._types.uploads import counts, details, wrapped

EMPTY = manyview.ImageError(reason="IMAGE_EMPTY", message="the image has no bytes")
REPORT = manyview.UploadReport(
    upload_id="u",
    num_sent=3073,
    num_stored=3068,
    num_duplicates=1,
    num_rejected=4,
    rejected=tuple(manyview.RejectedImage(key=f"{number}.jpg", error=EMPTY) for number in range(4)),
    skipped=(
        manyview.SkippedFiles(reason="HIDDEN", num_files=5, names=("p/.a", "p/.b", "p/.c", "p/.d"), hint="Rename."),
    ),
)


def conflicts(count: int) -> tuple[manyview.LabelConflict, ...]:
    return tuple(
        manyview.LabelConflict(key=f"backup/{number}", label="backup", first_key=f"cat/{number}", first_label="cat")
        for number in range(count)
    )


def test_the_numbers_add_up_to_what_was_found() -> None:
    assert counts(REPORT) == "3,078 found: 3,068 stored, 1 duplicate, 4 refused, 5 passed over"
    assert counts(replace(REPORT, num_duplicates=2)).startswith("3,079 found: 3,068 stored, 2 duplicates,")


def test_each_reason_names_a_few_files_and_counts_the_others() -> None:
    assert list(details(replace(REPORT, label_conflicts=conflicts(5)))) == [
        "  refused 4 IMAGE_EMPTY",
        *(f"    {number}.jpg: the image has no bytes" for number in range(3)),
        "    and 1 more",
        "  passed over 5 HIDDEN: p/.a, p/.b, p/.c and 2 more",
        "    Rename.",
        "  other labels 5: copies of an image whose first label stays",
        *(f"    backup/{number} 'backup', first cat/{number} 'cat'" for number in range(3)),
        "    and 2 more",
    ]


def test_files_that_were_not_sent_are_counted_because_no_list_of_the_server_has_them() -> None:
    unsent = tuple(manyview.RejectedImage(key=f"{number}.jpg", error=EMPTY, was_sent=number > 1) for number in range(4))
    last = list(details(replace(REPORT, rejected=unsent, skipped=())))[-1]
    assert last == "  2 refused files were not sent: only the report of an upload names them (--json names all)"


def test_a_narrow_terminal_gets_lines_that_break_between_words() -> None:
    name = "photographs/2024/05/a-name-that-is-longer-than-the-line.jpg"
    assert list(wrapped([f"  passed over 1 HIDDEN: {name} and 2 more", "    short"], 24)) == [
        "  passed over 1 HIDDEN:",
        f"    {name}",
        "    and 2 more",
        "    short",
    ]


def test_printed_and_in_a_notebook_it_is_the_text_of_the_command_line() -> None:
    lines = str(REPORT).splitlines()
    assert lines[:2] == [counts(REPORT), "  refused 4 IMAGE_EMPTY"]
    assert f">{REPORT}</pre>" in REPORT._repr_html_()
