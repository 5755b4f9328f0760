"""What the examples of all areas name: ids and times."""

from typing import TypeAlias

Example: TypeAlias = dict[str, object]

MODEL = f"sha256:{'3b' * 32}"
CERTIFICATE = f"sha256:{'7c' * 32}"
POLICY = f"sha256:{'a4' * 32}"
JOB = "8f14e45fceea167a5a36dedd4bea2543"
GATE = "45c48cce2e2d7fbdea1afc51c7c6ad26"
WEBHOOK = "6512bd43d9caa6e02c990b0a82652dca"
CREATED, ENDED = "2026-01-02T03:04:05.678Z", "2026-01-02T03:04:08.123Z"


def page(item: Example) -> Example:
    """A list that one page holds."""
    return {"items": [item], "next_cursor": None}
