"""What schemathesis has to be told: how a model's bytes are sent, and which key is not revoked."""

import os
from typing import Any

import schemathesis
from schemathesis import Case, HookContext, SerializationContext

KEPT = os.environ.get("LIPCERT_KEPT_KEY", "")  #: the id of the key that all calls have


@schemathesis.serializer("application/onnx", "application/x-onnx")
def as_bytes(_context: SerializationContext, value: object) -> bytes:
    """A model as it is."""
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.hook
def filter_case(  # Any: the answer, which there is none of yet
    _context: HookContext, case: Case[Any]
) -> bool:
    """All calls, but that which would shut out those that follow."""
    return not KEPT or (case.path_parameters or {}).get("key_id") != KEPT
