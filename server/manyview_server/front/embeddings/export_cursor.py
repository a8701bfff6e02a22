"""The position of an EmbedDataset stream, which its page tokens hold."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from manyview.v1 import embed_service_pb2 as pb
from manyview_server.counted_noun import number_of
from manyview_server.front.rpc import page_tokens
from manyview_server.front.rpc import resource_names as names

CURSOR = re.compile(r'\["[0-9a-f]{32}","[A-Za-z0-9_./-]{1,200}",[1-9][0-9]{0,17},"[0-9a-f]{16}",(0|[1-9][0-9]{0,17})\]')
"""The form of a cursor in a page token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportCursor:
    """The next row of a stream, and the images and model that its rows belong to."""

    dataset_uid: str
    checkpoint: str
    version: int
    digest: str
    """The digest of the table's specification."""
    first_row: int

    def encode(self, scope: str) -> str:
        """Return a page token. It fits only requests of this scope."""
        fields = [self.dataset_uid, self.checkpoint, self.version, self.digest, self.first_row]
        return page_tokens.encode_page_token(scope, json.dumps(fields, separators=(",", ":")))

    @classmethod
    def decode(cls, scope: str, token: str) -> ExportCursor | None:
        """Return the cursor in a token, or None for an empty token.

        Raises:
            InvalidArgument: the token belongs to another request, or no server made it.
        """
        inner = page_tokens.decode_page_token(scope, token, CURSOR)
        if not inner:
            return None
        uid, checkpoint, version, digest, first_row = json.loads(inner)
        if first_row > version:
            raise names.invalid(
                "page_token", f"continues at row {first_row}, beyond the {number_of(version, 'row')} of its version"
            )
        return cls(dataset_uid=uid, checkpoint=checkpoint, version=version, digest=digest, first_row=first_row)


def request_scope(request: pb.EmbedDatasetRequest) -> str:
    """Return a digest of the request without its page token. Page tokens fit only requests with the same digest."""
    same: Any = pb.EmbedDatasetRequest()
    same.CopyFrom(request)
    same.page_token = ""
    return f"embed/{hashlib.sha256(same.SerializeToString(deterministic=True)).hexdigest()}"
