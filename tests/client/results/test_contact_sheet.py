"""Captions that fit into the columns of a contact sheet."""

from PIL import ImageFont

from manyview._results.contact_sheet import FONT_PX, MAX_LINES, NO_BREAK, without_start, wrapped

FONT = ImageFont.load_default(FONT_PX)


def test_captions_are_wrapped_and_cut_to_the_width_of_a_column() -> None:
    lines = wrapped("first line\n" + "word " * 60 + "x" * 200, 100)
    assert lines[0] == "first line"
    assert len(lines) == MAX_LINES
    assert lines[-1].endswith("…")
    assert all(FONT.getlength(line) <= 100 for line in [*lines, *wrapped("y" * 200, 100)])


def test_no_line_breaks_within_a_step() -> None:
    steps = ["crop 40x30 at 2,1", "flip", "upside down", "turned 90°"]
    lines = wrapped(", ".join(step.replace(" ", NO_BREAK) for step in steps), 100)
    assert lines == ["crop 40x30 at 2,1,", "flip, upside down,", "turned 90°"]


def test_a_path_that_is_too_long_keeps_its_end() -> None:
    assert without_start("a/b.jpg", 100) == "a/b.jpg"
    cut = without_start("folder/" * 20 + "image.jpg", 100)
    assert cut.startswith("…")
    assert cut.endswith("/image.jpg")
    assert FONT.getlength(cut) <= 100
