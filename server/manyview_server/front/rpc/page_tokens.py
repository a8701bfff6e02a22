"""Check the page sizes and page tokens of requests. An error names the field."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from manyview_server.front.rpc.resource_names import invalid

POSITION = re.compile(r"[0-9]{1,18}")
"""The form of a page token that is a position: an integer that SQLite can hold."""
TOKEN_CHECK_BYTES = 6


def page_size(value: int, *, default: int, most: int) -> int:
    """Return the page size that a request asks for, where 0 means the default."""
    if not 0 <= value <= most:
        raise invalid("page_size", f"{value} is outside of 0 to {most:,}")
    return value or default


def encode_page_token(scope: str, inner: str) -> str:
    """Return an opaque token, or "" if `inner` is empty. `scope` names the query: the token fits no other query."""
    return base64.urlsafe_b64encode(_check(scope, inner) + inner.encode()).decode() if inner else ""


def decode_page_token(scope: str, token: str, form: re.Pattern[str]) -> str:
    """Return the text that `encode_page_token` was given. Raises InvalidArgument unless it has the form `form`.

    The check value is no secret: anybody can make a token. The caller may rely on the form alone.
    """
    if not token:
        return ""
    try:
        raw = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        inner = raw[TOKEN_CHECK_BYTES:].decode()
    except (binascii.Error, UnicodeError):
        inner, raw = "", b""
    if raw[:TOKEN_CHECK_BYTES] != _check(scope, inner) or not form.fullmatch(inner):
        raise invalid("page_token", "is not a token from an earlier answer to this query")
    return inner


def _check(scope: str, inner: str) -> bytes:
    return hashlib.sha256(f"{scope}\0{inner}".encode()).digest()[:TOKEN_CHECK_BYTES]
