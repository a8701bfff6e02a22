"""Captions that fit into the columns of a contact sheet."""

from PIL import ImageFont

from manyview._results.contact_sheet import FONT_PX, MAX_LINES, NO_BREAK, shortened, wrapped

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
    assert shortened("a/b.jpg", 100) == "a/b.jpg"
    cut = shortened("folder/" * 20 + "image.jpg", 100)
    assert cut.startswith("…")
    assert cut.endswith("/image.jpg")
    assert FONT.getlength(cut) <= 100


def test_a_name_that_is_too_long_keeps_both_ends() -> None:
    names = ["0a81f0c2-7d1e-4b57-9c1f-3a5ba2d517e1.jpg", "f3c96d5e-1b2a-4e0d-8f63-90ab1c2d37e1.jpg"]
    cut = [shortened(f"photographs/dress/{name}", 128) for name in names]
    assert [each[:4] for each in cut] == ["0a81", "f3c9"]
    assert all(each.endswith("7e1.jpg") and "…" in each for each in cut)
    assert all(FONT.getlength(each) <= 128 for each in [*cut, *wrapped(names[0], 128)])
    assert wrapped(names[0], 128) == [cut[0]], "on the sheet of a preview, too"
    assert shortened("12.  0.1234  a label of many words", 100).startswith("12.  0.")
