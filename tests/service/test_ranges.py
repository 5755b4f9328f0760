"""The bytes of a model, whole and in parts."""

from pathlib import Path

import pytest
from fastapi import Request
from service_fakes import model
from service_process import Service, problem

from service.problems import Problem
from service.ranges import file_answer

DATA = model("in parts")


@pytest.fixture(scope="module")
def url(service: Service) -> str:
    return f"/v1/models/{service.upload(DATA)}/content"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=0-3", DATA[:4]),
        ("bytes=5-", DATA[5:]),
        ("bytes=-6", DATA[-6:]),
        (f"bytes=2-{10**9}", DATA[2:]),
    ],
)
def test_a_part_is_what_was_asked_for(
    service: Service, url: str, asked: str, expected: bytes
) -> None:
    answer = service.client.get(url, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, expected)
    assert answer.headers["content-range"].endswith(f"/{len(DATA)}")


@pytest.mark.parametrize("asked", ["bytes=3-1", "bytes=0-1,3-4", "lines=1-2", "bytes=a-b", "²"])
def test_what_is_no_single_range_is_ignored(service: Service, url: str, asked: str) -> None:
    answer = service.client.get(url, headers=[(b"Range", asked.encode("latin-1"))])
    assert (answer.status_code, answer.content) == (200, DATA)


@pytest.mark.parametrize("asked", [f"bytes={len(DATA)}-", "bytes=-0"])
def test_a_part_that_is_not_there_is_a_problem(service: Service, url: str, asked: str) -> None:
    answer = service.client.get(url, headers={"Range": asked})
    assert (answer.status_code, problem(answer)["code"]) == (416, "range-not-satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(DATA)}"


def test_a_file_that_is_deleted_meanwhile_is_not_found(tmp_path: Path) -> None:
    request = Request({"type": "http", "headers": []})
    with pytest.raises(Problem, match="deleted"):
        file_answer(request, tmp_path / "gone", "text/plain", {"ETag": '"gone"'})


def test_whoever_has_the_bytes_is_not_sent_them_again(service: Service, url: str) -> None:
    head = service.client.head(url)
    assert (head.headers["content-length"], head.content) == (str(len(DATA)), b"")
    again = service.client.get(url, headers={"If-None-Match": head.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
