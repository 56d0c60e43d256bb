"""The ``Idempotency-Key`` of a request (IETF draft draft-ietf-httpapi-idempotency-key-header)."""

from __future__ import annotations

from collections.abc import Mapping

from chalicelib.domain.errors import Fault, InvalidRequest
from chalicelib.domain.idempotency import idempotency_of
from chalicelib.domain.timer import Idempotency
from chalicelib.rest import strict_json
from chalicelib.rest.headers import IDEMPOTENCY_KEY


def read(headers: Mapping[str, str], operation: str, body: bytes) -> Idempotency | None:
    """Return the idempotency of a valid request to ``operation``; None if it has no key.

    Raises ``InvalidRequest`` if the key is not valid.
    """
    key = headers.get(IDEMPOTENCY_KEY.name.lower())
    if key is None:
        return None
    try:
        return idempotency_of(key, operation, strict_json.read(body).value)
    except ValueError as error:
        raise InvalidRequest([Fault(IDEMPOTENCY_KEY.name, str(error))]) from error
