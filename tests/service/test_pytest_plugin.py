"""The assertion of pytest users: a session of its own, which passes and fails as it should."""

from pathlib import Path

import pytest

from service.pytest_plugin import assert_lipschitz

pytest_plugins = ["pytester"]

MODEL = Path(__file__).parents[2] / "examples/maxmin_mlp.onnx"

SESSION = """
def test_tight_enough(assert_lipschitz):
    assert assert_lipschitz({model!r}, max_bound=1.01, method="product").startswith("sha256:")

def test_too_tight(assert_lipschitz):
    assert_lipschitz({model!r}, max_bound=0.01, seconds=5)

def test_a_file_that_is_no_model(assert_lipschitz):
    assert_lipschitz(b"no model", max_bound=1.0)
"""


def test_a_session_with_the_fixture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SESSION.format(model=str(MODEL)))
    result = pytester.runpytest_subprocess("-q")  # which finds the fixture by its entry point
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*not proved to be at most 0.01: fail, a witness exceeds the limit*",
            "*not proved to be at most 1.0: error*not an ONNX model*",
        ]
    )


def test_a_region_makes_it_local() -> None:
    center = [0.0] * 64
    region = {"type": "box", "center": center, "radius": 0.01}
    model = MODEL.with_name("relu_mlp.onnx")
    assert assert_lipschitz(model, max_bound=1e4, norm="linf", region=region, seconds=20.0)
