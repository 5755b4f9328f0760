"""A certificate for people and for other tools: what is chosen, and that nothing in it runs."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
from service_fakes import model
from service_process import Service, problem

from service.certificate_facts import READ_BYTES, facts_of
from service.certificate_page import CHARACTERS, POLICY, page_of
from service.certificate_report import junit_of, sarif_of
from service.negotiation import preferred
from service.problems import Problem
from service.store.certificates import Stored

HOSTILE = "</code><script>alert(1)</script><img src=x onerror=alert(1)>\x1b&\"'"
ID, MODEL = "sha256:" + "c" * 64, "sha256:" + "d" * 64

#: The elements that a page may have.
KNOWN = {
    "html",
    "meta",
    "title",
    "style",
    "h1",
    "h2",
    "p",
    "pre",
    "code",
    "table",
    "tr",
    "th",
    "td",
}

OFFERS = ("application/json", "application/xml", "text/html")
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("APPLICATION/XML", "application/xml"),
        ("application/json;q=0.5, application/xml; q=0.9", "application/xml"),
        ("text/*, application/json;q=0.9", "text/html"),
        ("*/*, application/json;q=0", "application/xml"),
        (BROWSER, "text/html"),
    ],
)
def test_the_header_decides(accept: str | None, chosen: str) -> None:
    assert preferred(accept, OFFERS) == chosen


@pytest.mark.parametrize("accept", ["image/png", "text/html;q=nan", "text/html;q=0"])
def test_the_header_may_leave_nothing(accept: str) -> None:
    with pytest.raises(Problem) as refused:
        preferred(accept, OFFERS)
    assert refused.value.entry.code == "not-acceptable"


@pytest.fixture(scope="module")
def path(service: Service) -> str:
    """The path of a certificate whose target is violated: the bound is 4, a witness reaches 1."""
    job = service.submit(service.upload(model("shown")), wait=20, target={"upper": 0.5})
    return f"/v1/certificates/{job['certificate']}"


def get(service: Service, path: str, accept: str) -> httpx.Response:
    return service.client.get(path, headers={"Accept": accept})


def test_every_representation_is_of_the_same_certificate(service: Service, path: str) -> None:
    text = get(service, path, "application/json")
    certificate = text.json()
    sarif = get(service, path, "application/sarif+json").json()
    (result,) = sarif["runs"][0]["results"]
    assert (result["kind"], result["level"]) == ("fail", "error")
    assert result["properties"]["certificate"] == path.rpartition("/")[2]
    junit = ElementTree.fromstring(get(service, path, "application/xml").text)  # noqa: S314 - ours
    properties = {one.get("name"): one.get("value") for one in junit.iter("property")}
    assert properties["bound"] == str(certificate["claim"]["bound"])
    assert [one.get("type") for one in junit.iter("failure")] == ["violated"]
    page = get(service, path, BROWSER)
    assert page.headers["content-security-policy"] == POLICY
    assert "violated" in page.text
    answers = [text, page]
    assert len({answer.headers["etag"] for answer in answers}) == 2
    assert {answer.headers["vary"] for answer in answers} == {"Accept"}
    again = {"If-None-Match": page.headers["etag"], "Accept": "text/html"}
    assert service.client.get(path, headers=again).status_code == 304


def test_what_is_not_had_is_not_acceptable(service: Service, path: str) -> None:
    for accept in ("image/png", "application/vnd.in-toto+json"):
        refused = get(service, path, accept)
        assert (problem(refused)["code"], refused.status_code) == ("not-acceptable", 406)


class Tags(HTMLParser):
    """The elements and attributes of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.found.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.text += data


def stored(size: int, **changes: object) -> Stored:
    summary = {
        "bound": 4.0,
        "log10_bound": 0.61,
        "lower": None,
        "soundness": "rigorous",
        "proof": HOSTILE,
    }
    return Stored(
        id=ID,
        blob="b",
        size=size,
        model=MODEL,
        kind="lipschitz",
        scope="global",
        summary={**summary, **changes},
        created=0,
    )


def certificate(**changes: object) -> dict[str, Any]:
    claim = {
        "model": MODEL,
        "norm": {"input": {"type": "l2", "weights": [1.0]}, "output": "l2"},
        "bound": 4.0,
        "log10_bound": 0.61,
        "assumptions": [{"code": HOSTILE, "node": HOSTILE, "value": 1}],
        "bounds": [{"output": n, HOSTILE: HOSTILE} for n in range(60)],
    }
    return {
        "claim": {**claim, **changes},
        "lower_bound": None,
        "soundness": "rigorous",
        "target": None,
        "verdict": None,
        "proof": {"kind": "product"},
        "producer": {"version": "x" * 5000, HOSTILE: HOSTILE},
        "attempts": [{"method": HOSTILE, "bound": 4.0, "seconds": 0.1}],
    }


@pytest.mark.parametrize("size", [1, READ_BYTES + 1])
def test_a_hostile_name_stays_text(size: int, tmp_path: Path) -> None:
    text = tmp_path / "certificate"
    text.write_text(json.dumps(certificate()), encoding="utf-8")
    facts = facts_of(stored(size), text)
    page = Tags(page_of(facts))
    assert page.found <= KNOWN
    assert page.attributes <= {"lang", "charset", "name", "content", "scope"}
    assert "<script>alert(1)</script>" in page.text
    assert "\x1b" not in page.text
    assert "x" * CHARACTERS not in page.text
    assert ("10 more are in the JSON" in page.text) == (size == 1)
    (case,) = ElementTree.fromstring(junit_of(facts)).findall("testcase")  # noqa: S314 - ours
    assert case.find("failure") is None
    (result,) = json.loads(json.dumps(sarif_of(facts)))["runs"][0]["results"]
    assert result["kind"] == "informational"


@pytest.mark.parametrize(
    ("kind", "verdict", "bound", "text"),
    [
        ("lipschitz", None, None, "the Lipschitz constant is at most 10^0.61"),
        ("jacobian", None, None, "every entry of the Jacobian lies in its interval"),
        ("monotone", "certified", None, "the output is monotone in the input"),
        ("monotone", "violated", None, "the output is not monotone in the input"),
        ("monotone", "undecided", None, "whether the output is monotone in the input is open"),
    ],
)
def test_every_kind_says_what_it_asserts(
    kind: str, verdict: str | None, bound: float | None, text: str, tmp_path: Path
) -> None:
    path = tmp_path / "certificate"
    members = {**certificate(bound=bound), "verdict": verdict}
    path.write_text(json.dumps(members), encoding="utf-8")
    facts = facts_of(replace(stored(1), kind=kind), path)
    assert facts.assertion == text
