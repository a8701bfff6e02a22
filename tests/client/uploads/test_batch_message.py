"""The bytes of a batch are those that the protobuf library writes."""

from hypothesis import given
from hypothesis import strategies as st

from manyview._uploads.batch_message import batch_pieces
from manyview._uploads.encoded_image import EncodedImage
from manyview.v1 import dataset_service_pb2 as pb
from manyview.v1 import types_pb2

SIZES = st.sampled_from([0, 1, 127, 128, 16_383, 16_384, 3_000_000])
IMAGES = st.builds(EncodedImage, st.text(max_size=200), SIZES.map(bytes), st.text(max_size=200))


@given(st.integers(1, 2**63 - 1), st.lists(IMAGES, max_size=5))
def test_the_bytes_are_those_of_the_message(number: int, images: list[EncodedImage]) -> None:
    protos = [types_pb2.Image(data=i.data, key=i.key, label=i.label, sha256=i.sha256) for i in images]
    expected = pb.UploadImagesRequest(batch=types_pb2.ImageBatch(number=number, images=protos))
    assert b"".join(batch_pieces(number, images)) == expected.SerializeToString()
