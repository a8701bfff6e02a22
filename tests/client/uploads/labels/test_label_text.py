"""Every kind of value that callers have as labels, and the text that it becomes."""

import enum
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from manyview._uploads.labels.label_text import label_text


class Tensor:
    """A tensor as PyTorch has it, as far as labels are concerned; tests of the client do not import PyTorch."""

    def __init__(self, *values: float) -> None:
        self._values = values
        self.shape = (len(values),) if len(values) > 1 else ()

    def item(self) -> float:
        (value,) = self._values
        return value


class Animal(enum.StrEnum):
    CAT = "cat"


class Size(enum.IntEnum):
    LARGE = 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("cat", "cat"), (" cat\t", "cat"), ("cat\n", "cat"), ("a,b", "a,b"), ("été 日本", "été 日本"), ("nan", "nan"),
        (b"cat", "cat"), (np.str_("cat"), "cat"), (np.bytes_("cat"), "cat"), (Animal.CAT, "cat"),
        (3, "3"), (0, "0"), (-1, "-1"), (Size.LARGE, "3"), (3.0, "3"), (-0.0, "0"), (0.5, "0.5"), ("3.0", "3.0"),
        (np.int64(3), "3"), (np.uint8(3), "3"), (np.float64(3.0), "3"), (np.float32(0.5), "0.5"),
        (True, "True"), (False, "False"), (np.bool_(True), "True"),
        (np.array(3), "3"), (np.array([3]), "3"), (np.array([[3.0]]), "3"), (np.array("cat"), "cat"),
        (np.array(["cat"], dtype=object), "cat"), (Tensor(3), "3"), (Tensor(3.0), "3"),
    ],
)  # fmt: skip
def test_a_text_or_a_number_is_a_label(value: Any, text: str) -> None:
    assert label_text(value, "image 0") == text


@pytest.mark.parametrize(
    "value",
    [
        None, "", " \n", b"", float("nan"), np.nan, np.float32("nan"), np.array(np.nan), np.array(None), Tensor(np.nan),
        np.ma.masked, np.ma.array([7], mask=[True])[0], np.datetime64("NaT"),
    ],
)  # fmt: skip
def test_a_missing_value_is_no_label(value: Any) -> None:
    assert label_text(value, "image 0") == ""


def test_missing_values_of_pandas_are_no_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing:
        def __bool__(self) -> bool:
            raise TypeError("boolean value of NA is ambiguous")

    pandas = ModuleType("pandas")
    pandas.NA, pandas.NaT = Missing(), Missing()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    assert [label_text(value, "image 0") for value in (pandas.NA, pandas.NaT, "cat")] == ["", "", "cat"]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.array([0, 1]), r"an array of shape \(2,\); for a one-hot row, give its argmax\(\)"),
        (np.eye(2), r"an array of shape \(2, 2\)"),
        (np.array([]), r"an array of shape \(0,\)"),
        (Tensor(0, 1, 0), r"an array of shape \(3,\); for a one-hot row"),
        ([0, 1], r"not a list of 2; for a one-hot row, give its argmax: row.index"),
        ((0.0, 1.0), "not a tuple of 2; for a one-hot row"),
        (["cat", "dog"], "one label, not a list of 2$"),
        ([], "not a list of 0$"),
        ({"name": "cat"}, r"text or one number, not dict; str\(\) makes it text"),
        (object(), "not object"),
        (1j, "not complex"),
        (np.datetime64("2024-05-01"), "not date"),
    ],
)
def test_anything_else_is_refused_with_a_hint(value: Any, says: str) -> None:
    with pytest.raises(TypeError, match=rf"^labels\[7\]: .*{says}"):
        label_text(value, "labels[7]")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("cat\ndog", r"the label 'cat\\ndog' has the control character '\\n'; remove it"),
        ("a\x00", r"the control character '\\x00'"),
        ("a\x9f", r"the control character '\\x9f'"),
        ("\udc80", "is not valid UTF-8"),
        (b"\xff\xfe", "is not valid UTF-8"),
        ("é" * 513, r"the label 'é{39}…' has 1,026 bytes; at most 1,024 are allowed"),
        (float("inf"), "must be finite, not inf"),
        (np.float32("-inf"), "must be finite, not -inf"),
    ],
)
def test_a_text_or_number_that_cannot_be_a_label_is_refused(value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=f"^image 3: .*{says}"):
        label_text(value, "image 3")
