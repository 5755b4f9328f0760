"""Links to what the service has, for those who do not call it at this moment.

They are paths, as in its answers; URLs where the operator says how the service is reached from
outside (`public_url`), which it cannot know by itself.
"""

import json
from urllib.parse import quote, urlsplit


def parse_public_url(text: str) -> str:
    """The address that a text gives, without a slash at its end.

    Raises:
        ValueError: it is no address of a service.
    """
    parts = urlsplit(text)
    is_bare = not (parts.query or parts.fragment or parts.username or parts.password)
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_bare:
        raise ValueError("no address of a service")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("no URL is written so")
    return text.rstrip("/")


def link_to(path: str, public_url: str | None) -> str:
    """The link to a path of this service."""
    return path if public_url is None else f"{public_url}{path}"


def place_of_model(model: str, public_url: str | None) -> str:
    """The URI of a model's bytes, for reports; relative to the service where it has no URL."""
    return link_to(f"/v1/models/{quote(model)}/content", public_url).removeprefix("/")


def place_of_file(path: str) -> str:
    """The URI of a file, as the command line named it."""
    return quote(path)


def linked(message: str, public_url: str | None) -> str:
    """The message of a webhook, its links leading to the service from wherever it is read."""
    if public_url is None:
        return message
    members = json.loads(message)
    links = members["data"].get("links", {})
    members["data"]["links"] = {name: link_to(path, public_url) for name, path in links.items()}
    return json.dumps(members, separators=(",", ":"), allow_nan=False)
