"""Logs, one JSON object a line on standard error: what machines collect and people can read.

    {"time", "level", "logger", "message", ...}

The rest are the members that `extra={"with": {...}}` names: a call's `request_id`, a job's `job`.
Neither bodies nor headers are ever logged, so neither keys nor models are.
"""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        moment = datetime.fromtimestamp(record.created, UTC)
        members: dict[str, object] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "with", {}),
        }
        if record.exc_info is not None:
            members["error"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(members, default=str)


def write_json_lines(level: int = logging.INFO) -> None:
    """Have this process log so."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
