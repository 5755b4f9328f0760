"""The `lipcert` command: inspect, certify, radius, check, gate, serve; the rest is `cli_*`.

Exit codes are those of the interface: 0 certified, valid or passed; 1 violated, rejected or failed
the gate; 2 undecided; 3 refused or misused; 4 failed. Heavy imports stand inside the commands, so
that `lipcert check` starts with numpy alone; models are read in a child process (`service.child`).
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.exceptions import TyperException

from service import terminal
from service.cli_audit import audit
from service.cli_database import DatabaseFlag, address_from
from service.cli_gate import MODEL_BYTES
from service.cli_gates import gates
from service.cli_keys import api_keys
from service.cli_signing import (
    add_signing,
    attestation_text,
    keys_to_trust,
    opened_text,
    private_key,
)
from service.cli_tenants import tenants
from service.cli_webhooks import webhooks as webhook_commands

if TYPE_CHECKING:
    from service.child import Outcome

OK, NO, UNDECIDED, REFUSED, FAILED = range(5)

app = typer.Typer(
    name="lipcert",
    help="Proved Lipschitz bounds of ONNX networks, as certificates anyone can check again.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX file.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]

add_signing(app)
app.add_typer(api_keys)
app.add_typer(audit)
app.add_typer(gates)
app.add_typer(tenants)
app.add_typer(webhook_commands)


@app.command()
def inspect(
    model: ModelFile,
    spec: Annotated[
        Path | None, typer.Option(help="A Request as JSON: what it binds, chooses and freezes.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """What the importer understood: shapes, layers, patterns, and what blocks which method."""
    from service import child
    from service.files import read_bytes
    from service.request_flags import Flags, request_from

    request = None if spec is None else request_from(Flags(spec=spec))
    outcome = child.inspect(read_bytes(model, "the model", MODEL_BYTES), request)
    if outcome.summary is None:
        return _explain(outcome, as_json=as_json)
    (terminal.print_json if as_json else terminal.print_summary)(outcome.summary)
    return OK


@app.command()
def certify(
    model: ModelFile,
    spec: Annotated[
        Path | None, typer.Option(help="A Request as JSON, without `model`; flags win over it.")
    ] = None,
    scope: Annotated[str | None, typer.Option(help="global or local.")] = None,
    norm: Annotated[
        str | None, typer.Option(help="l1, l2 or linf; `linf,l2` for input and output.")
    ] = None,
    norm_weights: Annotated[
        Path | None,
        typer.Option(help="Weights of the input norm, one for each input: .npy, .npz or .json."),
    ] = None,
    norm_matrix: Annotated[
        Path | None,
        typer.Option(help="P of the input norm sqrt(x'Px), for l2: .npy, .npz or .json."),
    ] = None,
    center: Annotated[
        Path | None,
        typer.Option(help="The center of a box: .npy, .npz or .json. Balls come with --spec."),
    ] = None,
    centers: Annotated[
        Path | None,
        typer.Option(help="Many centers, one along the file's first axis: a list of bounds."),
    ] = None,
    radius: Annotated[
        str | None, typer.Option(help="The box's radius: a number, or a file with one for each.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="auto, product, lipsdp or propagation.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Stop after this time (60).")] = None,
    gap: Annotated[
        float | None, typer.Option(help="Stop when bound / lower bound - 1 is this (0.01).")
    ] = None,
    target: Annotated[
        float | None, typer.Option(help="Stop when it is known whether the constant is above.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="An option of the method: name=value. Repeatable.")
    ] = None,
    semantics: Annotated[
        str | None,
        typer.Option(help="real, or real-idealised: nodes that jump by little are replaced."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the certificate here.")] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Keep branch and bound here, and go on from there if it exists."),
    ] = None,
    report: Annotated[bool, typer.Option("--report", help="Show the layers' constants.")] = False,
    as_json: AsJson = False,
) -> int:
    """The best proved bound within the budget, as a certificate. Ctrl-C keeps the best so far."""
    from service import child
    from service.files import read_bytes, write_text
    from service.request_flags import Flags, request_from

    flags = Flags(
        spec=spec,
        scope=scope,
        norm=norm,
        norm_weights=norm_weights,
        norm_matrix=norm_matrix,
        center=center,
        centers=centers,
        radius=radius,
        method=method,
        seconds=seconds,
        gap=gap,
        target=target,
        options=option or (),
        semantics=semantics,
    )
    request = request_from(flags)
    data = read_bytes(model, "the model", MODEL_BYTES)
    with terminal.progress_lines() as show:
        outcome = child.certify(data, request, show, checkpoint)
    if outcome.certificate is None:
        return _explain(outcome, as_json=as_json)
    if outcome.failure is not None:
        terminal.say(f"stopped early, the best bound is kept: {outcome.failure.error['detail']}")
    if out is not None:
        write_text(out, terminal.json_text(outcome.certificate))
    if as_json:
        terminal.print_json(outcome.certificate)
    else:
        terminal.print_certificate(outcome.certificate)
        if report:
            terminal.print_layers(outcome.certificate)
    return {"violated": NO, "undecided": UNDECIDED}.get(str(outcome.certificate["verdict"]), OK)


@app.command()
def radius(
    model: ModelFile,
    center: Annotated[
        Path | None, typer.Option(help="The point: .npy, .npz or .json, flat and row-major.")
    ] = None,
    centers: Annotated[
        Path | None, typer.Option(help="Many points, one along the file's first axis.")
    ] = None,
    norm: Annotated[str, typer.Option(help="Of the balls: linf or l2.")] = "linf",
    label: Annotated[
        int | None, typer.Option(help="The output that has to stay the greatest (the one that is).")
    ] = None,
    clip: Annotated[
        str | None, typer.Option(help="The input domain, `lower,upper`; for linf.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="For all points together.")] = 60.0,
    bind: Annotated[
        Path | None,
        typer.Option(help="A JSON file: {shapes, values}, of symbolic dimensions and inputs."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the answer here, as JSON.")] = None,
    as_json: AsJson = False,
) -> int:
    """The largest ball around a point on which its label is proved. Ctrl-C keeps the best."""
    from service import child
    from service.files import read_bytes, write_text
    from service.request_flags import question_from

    question = question_from(center, centers, norm, label, clip, seconds, bind)
    data = read_bytes(model, "the model", MODEL_BYTES)
    with terminal.progress_lines() as show:
        outcome = child.radii(data, question, seconds, show)
    if outcome.radii is None:
        return _explain(outcome, as_json=as_json)
    if outcome.failure is not None:
        terminal.say(f"stopped early, the best radii are kept: {outcome.failure.error['detail']}")
    if out is not None:
        write_text(out, terminal.json_text(outcome.radii))
    (terminal.print_json if as_json else terminal.print_radii)(outcome.radii)
    return OK if terminal.all_proved(outcome.radii) else UNDECIDED


@app.command()
def check(
    certificate: Annotated[
        Path, typer.Argument(metavar="CERTIFICATE", help="The JSON file, or its signed envelope.")
    ],
    model: Annotated[Path, typer.Option(help="The ONNX file that it is about.")],
    key: Annotated[
        Path | None,
        typer.Option(help="Require a signature by one of these keys: a key set, or a PEM file."),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """The independent checker: whether a certificate proves its claim about the model."""
    from service.files import read_bytes
    from verifier.checker import check as verdict_on
    from verifier.errors import NotCheckable

    text = read_bytes(certificate, "the certificate", 2**30)
    data = read_bytes(model, "the model", MODEL_BYTES)
    opened = opened_text(text, keys_to_trust(key))
    verdict = opened.rejection or verdict_on(opened.certificate, data)
    if as_json:
        terminal.print_json(terminal.verdict_json(verdict) | {"signature": opened.signature})
    else:
        terminal.print_verdict(verdict, opened.signature)
    if verdict.valid:
        return OK
    return REFUSED if verdict.code == NotCheckable.code else NO


@app.command()
def gate(
    model: ModelFile,
    policy: Annotated[Path | None, typer.Option(help="The rules, as YAML or JSON.")] = None,
    server: Annotated[
        str | None,
        typer.Option(help="Have the bounds proved by the service at this URL, and checked here."),
    ] = None,
    remote_policy: Annotated[
        str | None,
        typer.Option(help="A policy of --server's, by name, name@version or digest."),
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write a summary here.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    sarif: Annotated[Path | None, typer.Option(help="Write SARIF 2.1.0 here.")] = None,
    attestation: Annotated[
        Path | None, typer.Option(help="Write the decision here, signed: a SLSA VSA in DSSE.")
    ] = None,
    sign_key: Annotated[
        Path | None, typer.Option(help="The private key that signs it ($LIPCERT_SIGNING_KEY).")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """A deployment gate: every property of the policy certified, checked, and compared."""
    from service import cli_gate, gate_report
    from service.files import write_text

    source = cli_gate.source(policy, server, remote_policy)
    signer = None if attestation is None else private_key(sign_key)
    decision, policy_text = cli_gate.decided(model, source)
    if markdown is not None:
        write_text(markdown, gate_report.markdown_text(decision))
    if junit is not None:
        write_text(junit, gate_report.junit_text(decision))
    if sarif is not None:
        from service.links import place_of_file

        report = gate_report.sarif_json(decision, place_of_file(str(model)))
        write_text(sarif, terminal.json_text(report))
    if attestation is not None and signer is not None:
        write_text(attestation, attestation_text(decision, policy_text, model.name, signer))
    if as_json:
        terminal.print_json(gate_report.decision_json(decision))
    else:
        cli_gate.print_decision(decision)
    return decision.exit_code


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="The address to listen on (127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on (8321).")] = None,
    data: Annotated[
        Path | None, typer.Option(help="The data directory ($XDG_DATA_HOME/lipcert).")
    ] = None,
    database_url: DatabaseFlag = None,
    insecure_no_auth: Annotated[
        bool, typer.Option("--insecure-no-auth", help="Beyond loopback although there are no keys.")
    ] = False,
    signing_key: Annotated[
        Path | None, typer.Option(help="The private key that signs certificates.")
    ] = None,
    trusted_keys: Annotated[
        Path | None, typer.Option(help="The key set that is published, its own among them.")
    ] = None,
    require_sandbox: Annotated[
        str | None,
        typer.Option(help="full or any: what must hold to start (full beyond loopback)."),
    ] = None,
    webhooks: Annotated[
        bool, typer.Option("--webhooks", help="Let tenants have others told of their jobs.")
    ] = False,
    webhooks_to_loopback: Annotated[
        bool, typer.Option("--webhooks-to-loopback", help="For development: over http, too.")
    ] = False,
) -> int:
    """The REST service with its workers, on its embedded database or on PostgreSQL."""
    from verifier.errors import InvalidRequest, RequestRefused

    try:
        from service.serve import serve as run_service
        from service.settings import from_environment
    except ImportError as error:
        raise RequestRefused(
            f"this installation cannot serve: module {error.name!r} is missing",
            fix="pip install 'lipcert[serve,verify]'",
        ) from error
    if require_sandbox not in (None, "full", "any"):
        raise InvalidRequest(
            f"--require-sandbox {require_sandbox!r} does not exist", fix="use full or any"
        )
    settings = from_environment(os.environ)
    settings = dataclasses.replace(
        settings,
        host=host or settings.host,
        port=settings.port if port is None else port,
        data=data or settings.data,
        database_url=address_from(database_url) or settings.database_url,
        signing_key=signing_key or settings.signing_key,
        trusted_keys=trusted_keys or settings.trusted_keys,
        insecure_no_auth=insecure_no_auth or settings.insecure_no_auth,
        require_sandbox=None if require_sandbox is None else require_sandbox == "full",
        webhooks=webhooks or settings.webhooks,
        webhook_loopback=webhooks_to_loopback or settings.webhook_loopback,
    )
    return run_service(settings) or OK


def main() -> None:
    """Runs the command and ends the process with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs the command on these arguments: the exit code. The one place that handles errors."""
    from verifier.errors import InvalidRequest, JobFailed, LipcertError

    as_json = "--json" in arguments
    try:
        return app(arguments, standalone_mode=False) or OK
    except LipcertError as error:
        terminal.print_refusal(error.to_json(), as_json=as_json)
        return FAILED if isinstance(error, JobFailed) else REFUSED
    except typer.Abort:
        terminal.say("interrupted")
        return FAILED
    except TyperException as error:
        refusal = InvalidRequest(_misuse_text(error), fix="see `lipcert --help`")
        terminal.print_refusal(refusal.to_json(), as_json=as_json)
        return REFUSED


def _misuse_text(error: TyperException) -> str:
    """What the parser says of a command line that it cannot read."""
    say = getattr(error, "format_message", None)  # the parser's own errors have it
    return str(say()) if callable(say) else str(error)


def _explain(outcome: Outcome, *, as_json: bool) -> int:
    """Says why there is no answer."""
    if outcome.failure is None:
        terminal.say("interrupted before anything was proved")
        return FAILED
    terminal.print_refusal(outcome.failure.error, as_json=as_json)
    return outcome.failure.exit_code


if __name__ == "__main__":
    main()
