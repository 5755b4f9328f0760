"""From ONNX files to certificates, through the REST service: what `make demo` runs.

Starts `lipcert serve` on a free port of this machine with a data directory of its own, uploads
every network of this folder, asks for its global l2 bound, and for a local linf bound of one. Each
certificate is downloaded, and checked by `lipcert check` in a process that has not seen the run.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).parent
LIPCERT = (sys.executable, "-m", "service.cli")
READY_S = 60.0  #: how long the service may take to start
JOB_S = 120.0  #: how long a job may take, waiting for its turn included
GLOBAL = {"property": {"scope": "global", "norm": "l2"}, "budget": {"seconds": 4}}

Json = dict[str, Any]  # what the service says


@dataclass(frozen=True, slots=True)
class Asked:
    """One job: of which model, what, and its id."""

    model: Path
    request: Json
    job: str


def main() -> int:
    """Runs the demonstration; 0 when every certificate was found valid."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="lipcert-demo-") as folder:
        command = [*LIPCERT, "serve", "--port", str(port), "--data", f"{folder}/data"]
        log = Path(folder, "service.log")
        with (
            log.open("wb") as output,
            subprocess.Popen(command, stderr=output) as service,  # noqa: S603 - our own command
        ):
            try:
                with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                    wait_until_ready(client, service, log)
                    return demonstrate(client, Path(folder))
            finally:
                service.terminate()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_ready(client: httpx.Client, service: subprocess.Popen[bytes], log: Path) -> None:
    """Waits for `/readyz`; ends the program when the service does not come up."""
    started = time.monotonic()
    while time.monotonic() - started < READY_S and service.poll() is None:
        try:
            if client.get("/readyz").is_success:
                say(f"service ready after {time.monotonic() - started:.1f} s")
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    sys.exit(f"the service did not start:\n{log.read_text(encoding='utf-8')}")


def demonstrate(client: httpx.Client, folder: Path) -> int:
    """Uploads, asks, waits, downloads and checks: 0 when every certificate is valid."""
    models = sorted(HERE.glob("*.onnx"))
    asked = [submit(client, model, GLOBAL) for model in models]
    local = json.loads((HERE / "request_local.json").read_text(encoding="utf-8"))
    asked.append(submit(client, HERE / "relu_mlp.onnx", local))
    say(f"{len(asked)} jobs submitted\n")
    say(f"{'model':25} {'property':14} {'bound':>20} {'at least':>20} {'proof':12} check")
    return max(report(client, one, folder) for one in asked)


def submit(client: httpx.Client, model: Path, request: Json) -> Asked:
    """Uploads a model (again: no harm, it is named by its digest) and asks for a certificate."""
    octets = {"Content-Type": "application/octet-stream"}
    uploaded = answer(client.post("/v1/models", content=model.read_bytes(), headers=octets))
    job = answer(client.post("/v1/jobs", json={"model": uploaded["id"], **request}))
    return Asked(model, request, job["id"])


def report(client: httpx.Client, asked: Asked, folder: Path) -> int:
    """Waits for a job, downloads its certificate and prints one line: the checker's exit code."""
    started = time.monotonic()
    job = answer(client.get(f"/v1/jobs/{asked.job}"))
    while job["state"] in ("queued", "running") and time.monotonic() - started < JOB_S:
        # A long poll: the service answers when something has changed, or after five seconds.
        job = answer(client.get(f"/v1/jobs/{asked.job}", headers={"Prefer": "wait=5"}))
    if job["certificate"] is None:
        say(f"{asked.model.name:25} {job['state']}: {json.dumps(job['error'])}")
        return 4
    text = client.get(f"/v1/jobs/{asked.job}/certificate", follow_redirects=True).text
    path = folder / f"{asked.job}.json"
    path.write_text(text, encoding="utf-8")
    done = subprocess.run(  # noqa: S603 - our own command
        [*LIPCERT, "check", str(path), "--model", str(asked.model), "--json"],
        capture_output=True,
        check=False,
        text=True,
    )
    say(line(asked, json.loads(text), json.loads(done.stdout)))
    return done.returncode


def line(asked: Asked, certificate: Json, verdict: Json) -> str:
    """What a certificate says, and what the checker says of it."""
    claim, lower = certificate["claim"], certificate["lower_bound"]
    # All digits of the bound: fewer could be a smaller number, which was not proved.
    reached = "-" if lower is None else str(lower["value"])
    return (
        f"{asked.model.name:25} {claim['scope'] + ' ' + claim['norm']['input']:14}"
        f" {claim['bound']:20} {reached:>20} {certificate['proof']['kind']:12}"
        f" {'valid' if verdict['valid'] else verdict['reason']}"
    )


def answer(response: httpx.Response) -> Json:
    """The body of an answer; ends the program when the service refused."""
    if not response.is_success:
        sys.exit(f"{response.request.method} {response.request.url}: {response.text}")
    return response.json()


def say(text: str) -> None:
    """One line at once, also where output is a pipe."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
