from __future__ import annotations

import numpy as np
import pytest

from manyview_server.messages.embedding import EmbedImages, EmbedRecipe, ModelKey, RowFailed
from manyview_server.worker.embedding.embed_requests import EmbedRequest


def answered(
    rows: list[list[float]], errors: list[RowFailed], *, l2_normalize: bool
) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """The rows and the errors of the answer to a request for which these were computed."""
    model = ModelKey(name="m", checkpoint_dir="", backbone="", weights_file="", output="backbone")
    recipe = EmbedRecipe(model=model, l2_normalize=l2_normalize, data_type="float16")
    request = EmbedRequest(EmbedImages(request_id=1, recipe=recipe, time_left_s=0.0))
    request.rows, request.errors = np.array(rows, np.float32), errors
    done = request.answer()
    return np.frombuffer(done.blobs[0], "<f2").reshape(done.shape), [(e.row, e.reason) for e in done.errors]


@pytest.mark.parametrize(("unit", "overflowed"), [(False, [1]), (True, [])])
def test_a_row_that_half_precision_cannot_hold_is_an_error_of_its_own(unit: bool, overflowed: list[int]) -> None:
    errors = [RowFailed(row=2, reason="DECODE_FAILED", message="torn")]
    found, reasons = answered([[3, 4], [3e5, 4e5], [np.nan] * 2, [np.inf, 1]], errors, l2_normalize=unit)
    assert reasons == [*((row, "FLOAT16_OVERFLOW") for row in overflowed), (2, "DECODE_FAILED"), (3, "NON_FINITE")]
    assert np.isnan(found[[*overflowed, 2, 3]]).all()
    assert np.isfinite(found[0]).all()
