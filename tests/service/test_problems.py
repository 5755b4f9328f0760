"""The catalogue of problems: each is documented, and produced by a test."""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from service_process import Service, problem

from service import reference
from service.app import describe_app
from service.problems import CATALOGUE, OF_SERVICE
from verifier.errors import LipcertError, all_errors

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
FAMILIES = {error for error in all_errors() if error.__subclasses__()}


def _claimed(tree: ast.AST) -> Iterator[str]:
    """The texts and names in what a module asserts, awaits as raised, and is parametrised by."""
    for node in ast.walk(tree):
        for part in _places(node):
            for inner in ast.walk(part):
                if isinstance(inner, ast.Constant):
                    yield str(inner.value).strip("b'\"")  # texts, and bytes that hold one
                elif isinstance(inner, ast.Name):
                    yield inner.id


def _places(node: ast.AST) -> Sequence[ast.AST]:
    """The parts of a statement where a test says what it expects."""
    match node:
        case ast.Assert(test=test):
            return [test]
        case ast.With(items=items):
            return items
        case ast.FunctionDef(decorator_list=decorators):
            return decorators
        case ast.Module(body=body):
            return [part for part in body if isinstance(part, ast.Assign | ast.AnnAssign)]
        case _:
            return []


def _tested(*folders: str) -> set[str]:
    files = [path for folder in folders for path in (ROOT / folder).rglob("test_*.py")]
    others = [path for path in files if path != Path(__file__)]
    return {
        claimed
        for path in others
        for claimed in _claimed(ast.parse(path.read_text(encoding="utf-8")))
    }


def test_every_problem_of_the_service_is_produced_by_a_test_of_the_service() -> None:
    tested = _tested("tests/service")
    assert sorted(entry.code for entry in OF_SERVICE if entry.code not in tested) == []


def test_every_error_of_the_verifier_is_produced_by_a_test() -> None:
    tested = _tested("tests")

    def is_tested(error: type[LipcertError]) -> bool:
        return error.code in tested or error.__name__ in tested

    missing = {error.code for error in all_errors() if not is_tested(error)}
    assert missing <= {error.code for error in FAMILIES}, missing


def test_the_page_is_the_catalogue() -> None:
    """Regenerate with: python -m service.reference > docs/reference.md."""
    assert reference.page(describe_app().openapi()) == PAGE


@pytest.mark.parametrize("code", CATALOGUE)
def test_a_problem_is_on_the_page(code: str) -> None:
    assert f"| `{code}` | {CATALOGUE[code].status}" in PAGE


def test_the_type_of_a_problem_leads_to_what_it_means(service: Service) -> None:
    told = problem(service.client.get("/v1/nothing"))
    answer = service.client.get(told["type"])
    assert (answer.status_code, answer.headers["location"]) == (303, "/docs#problem-not-found")
    assert "id=problem-not-found>" in service.client.get("/docs").text
    assert problem(service.client.get("/problems/nothing"))["code"] == "not-found"
