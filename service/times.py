"""Times as clients see them; inside they are integer milliseconds since 1970 UTC."""

from datetime import UTC, datetime


def time_text(milliseconds: int | None) -> str | None:
    """RFC 3339 in UTC."""
    if milliseconds is None:
        return None
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
