"""Where the shared models lie: LIPCERT_SHARED, and nothing is looked for without it."""

import importlib.util
import json
import os
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

ROOT = Path(os.environ["LIPCERT_SHARED"]) if "LIPCERT_SHARED" in os.environ else None
needs_shared = pytest.mark.skipif(ROOT is None, reason="LIPCERT_SHARED does not name a folder")


def models() -> list[Path]:
    """Every shared model."""
    if ROOT is None:
        return []
    folders = ("yardsticks/onnx", "models", "models/exports")
    return [path for folder in folders for path in sorted((ROOT / folder).glob("*.onnx"))]


@cache
def hostile() -> dict[str, tuple[bytes, dict[str, object]]]:
    """Every hostile file with its line of the manifest; made anew, for the script is small."""
    if ROOT is None:
        return {}
    spec = importlib.util.spec_from_file_location("make_hostile", ROOT / "hostile/make_hostile.py")
    if spec is None or spec.loader is None:
        return {}
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = Path(mkdtemp(prefix="hostile-"))
    module.main(str(folder))
    rows = json.loads((folder / "manifest.json").read_text())
    return {row["file"]: ((folder / row["file"]).read_bytes(), row) for row in rows}
