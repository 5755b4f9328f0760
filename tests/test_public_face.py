"""What `verifier` offers: complete, sorted, and there."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import verifier

ROOT = Path(__file__).parents[1]


def test_all_is_sorted() -> None:
    assert verifier.__all__ == sorted(verifier.__all__)


@pytest.mark.parametrize("name", verifier.__all__)
def test_public_name_is_there(name: str) -> None:
    assert getattr(verifier, name) is not None


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = verifier.nothing  # type: ignore[attr-defined] - that it is unknown is the point


def test_submodule_does_not_hide_the_function() -> None:
    importlib.import_module("verifier.verify")
    assert callable(verifier.verify)
    assert callable(verifier.check)


def test_import_loads_no_submodule_but_the_version() -> None:
    code = "import sys, verifier; print([m for m in sys.modules if m.startswith('verifier.')])"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.strip() == "['verifier.version']"


def test_changelog_knows_the_version() -> None:
    assert f"## {verifier.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(one for extra in extras for one in extra)]
    names = {one.split(">")[0].split("=")[0].split("[")[0].lower() for one in wanted}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    assert names <= {line.partition("==")[0].lower() for line in lines}
