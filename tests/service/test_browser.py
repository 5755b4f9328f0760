"""The pages in a real browser, without network: they show what they say, and nothing in them fails.

Debian's `chromium`; without it, it skips.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import pytest
from service_fakes import model
from service_process import Service

FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nobody else is there
    "--enable-logging=stderr",
    "--dump-dom",
)


@dataclass(frozen=True)
class Shown:
    """A page as a browser shows it."""

    text: str  #: without markup
    complaints: list[str]  #: errors of scripts, loads that the page's policy forbids


Browser = Callable[[str], Shown]


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    """Opens an address, and reads what is there when it is loaded."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no browser is installed (Debian: chromium)")
    # As root it refuses its own sandbox; it sees no page but ours.
    flags = [*FLAGS, "--no-sandbox"] if os.geteuid() == 0 else FLAGS

    def show(address: str) -> Shown:
        done = subprocess.run(
            [program, *flags, f"--user-data-dir={tmp_path / 'profile'}", address],
            env={**os.environ, "HOME": str(tmp_path)},
            check=True,
            capture_output=True,
            text=True,
            timeout=300,
        )
        text = unescape(re.sub(r"<style>.*?</style>|<[^>]*>", " ", done.stdout, flags=re.DOTALL))
        said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return Shown(" ".join(text.split()), said)

    return show


@pytest.mark.parametrize(
    ("head", "body", "complaint"),
    [
        ("", "<script>throw 'late'</script>", "late"),
        (
            "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'\">",
            "<img src=https://example.org/x.png>",
            "Content Security Policy",
        ),
    ],
    ids=["script", "load"],
)
def test_the_browser_tells_what_fails(
    browser: Browser, tmp_path: Path, head: str, body: str, complaint: str
) -> None:
    page = tmp_path / "page.html"
    page.write_text(f"<head>{head}</head><p>seen</p>{body}")
    shown = browser(page.as_uri())
    assert shown.text.startswith("seen")
    assert [complaint in line for line in shown.complaints] == [True]


def test_a_certificate_is_a_page(browser: Browser, service: Service, tmp_path: Path) -> None:
    job = service.submit(service.upload(model("browsed")), wait=30, target={"upper": 5.0})
    address = f"{service.url}/v1/certificates/{job['certificate']}"
    shown = browser(address)
    assert shown.complaints == []
    for fact in ("the Lipschitz constant is at most 4", "certified", job["model"], "rigorous"):
        assert fact in shown.text
    kept = tmp_path / "kept.html"  # as who keeps the page sees it, without the service
    kept.write_text(service.client.get(address, headers={"Accept": "text/html"}).text)
    assert browser(kept.as_uri()) == shown


def test_the_documentation_is_a_page(browser: Browser, service: Service) -> None:
    shown = browser(f"{service.url}/docs")
    assert shown.complaints == []
    for fact in ("POST /v1/jobs", "/v1/gates/{gate_id}/cancel", "gate-canceled"):
        assert fact in shown.text
