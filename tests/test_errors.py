"""The error tree: every class has a code of its own and a line that explains it."""

import re

import pytest

from verifier.errors import InvalidRequest, JobFailed, LipcertError, OpUnsupported, all_errors

CLASSES = list(all_errors())


def test_codes_are_unique() -> None:
    codes = [error.code for error in CLASSES]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.code)
def test_class_states_code_and_title_itself(error: type[LipcertError]) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", error.code)
    assert error.__doc__ is not None
    title = error.__doc__.splitlines()[0]
    assert title.endswith(".")
    assert error is LipcertError or "code" in vars(error), "the code is inherited"


def test_tree_of_the_docstring_names_every_class() -> None:
    import verifier.errors

    drawn = set(
        re.findall(r"[A-Z][A-Za-z]+", (verifier.errors.__doc__ or "").partition("An answer")[0])
    )
    assert {error.__name__ for error in CLASSES} <= drawn


def test_json_has_the_members_of_a_refusal() -> None:
    error = OpUnsupported("op 'Foo' has no rule", fix="remove it", node="foo_1")
    assert error.to_json() == {
        "code": "unsupported-op",
        "title": "An operator is not supported.",
        "detail": "op 'Foo' has no rule",
        "node": "foo_1",
        "fix": "remove it",
    }


def test_invalid_request_points_at_the_member() -> None:
    assert InvalidRequest("no", fix="yes", pointer="/budget").pointer == "/budget"


def test_error_can_be_raised_through_a_context_manager() -> None:
    """A frozen dataclass could not: contextlib assigns `__traceback__` on its way."""
    from collections.abc import Generator
    from contextlib import contextmanager

    @contextmanager
    def passing() -> Generator[None]:
        yield

    with pytest.raises(JobFailed), passing():
        raise JobFailed("x", fix="y")
