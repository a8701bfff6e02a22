"""The table of limits names every field of every request that can be large, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from manyview_server.front.rpc.request_limits import FIELD_LIMITS
from manyview_server.front.rpc.wire_check import needs_limit
from manyview_server.front.server import PROTO_FILES


def fields(message: Descriptor, seen: set[str]) -> Iterator[FieldDescriptor]:
    """Every field of a message and of all that is in it."""
    if message.full_name in seen:
        return
    seen.add(message.full_name)
    for field in message.fields:
        yield field
        if field.message_type is not None:
            yield from fields(field.message_type, seen)


def fields_of_requests() -> list[FieldDescriptor]:
    methods = [m for file in PROTO_FILES for s in file.DESCRIPTOR.services_by_name.values() for m in s.methods]
    assert len(methods) >= 30
    seen: set[str] = set()
    return [field for method in methods for field in fields(method.input_type, seen)]


def test_every_list_map_text_and_configuration_of_a_request_has_a_limit() -> None:
    missing = {field.full_name for field in fields_of_requests() if needs_limit(field)} - FIELD_LIMITS.keys()
    assert not missing, f"request_limits.FIELD_LIMITS lacks {sorted(missing)}"


def test_the_table_has_no_field_that_the_contract_lacks() -> None:
    assert not FIELD_LIMITS.keys() - {field.full_name for field in fields_of_requests()}


def test_every_list_has_a_number_of_items_and_every_text_a_number_of_bytes() -> None:
    without = {"manyview.v1.Image.data"}  # the message bounds it, and a larger image is refused alone
    for field in fields_of_requests():
        if needs_limit(field) and field.full_name not in without:
            limit = FIELD_LIMITS[field.full_name]
            assert (limit.items is not None) == field.is_repeated, field.full_name
            is_text = field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
            assert not is_text or limit.bytes is not None, field.full_name
