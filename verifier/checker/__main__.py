"""`python -m verifier.checker CERT --model FILE [--json]`: check a certificate without lipcert.

Exit codes: 0 valid, 1 rejected, 3 the model cannot be checked or a file cannot be read.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from verifier.checker import Verdict, check


def main(arguments: list[str] | None = None) -> int:
    """Print the verdict; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m verifier.checker", description="Check a Lipschitz certificate again."
    )
    parser.add_argument("certificate", type=Path, help="the certificate's JSON file")
    parser.add_argument("--model", type=Path, required=True, help="the ONNX file it is about")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    given = parser.parse_args(arguments)
    try:
        certificate, model = given.certificate.read_bytes(), given.model.read_bytes()
    except OSError as error:
        sys.stderr.write(f"cannot read {error.filename}: {error.strerror}\n")
        return 3
    verdict = check(certificate, model)
    sys.stdout.write((_as_json(verdict) if given.json else _as_text(verdict)) + "\n")
    if verdict.valid:
        return 0
    return 3 if verdict.code == "not-checkable" else 1


def _as_json(verdict: Verdict) -> str:
    members = dataclasses.asdict(verdict)
    if verdict.proved is not None:
        # JSON has no infinity: beyond float64 the logarithm speaks.
        members["proved"] = [x if x < float("inf") else None for x in verdict.proved]
    return json.dumps(members, indent=2, allow_nan=False)


def _as_text(verdict: Verdict) -> str:
    lines = ["valid" if verdict.valid else f"rejected ({verdict.code}): {verdict.reason}"]
    if verdict.node is not None:
        lines.append(f"node: {verdict.node}")
    if verdict.proved is not None:
        lines.append("proved: " + ", ".join(repr(x) for x in verdict.proved))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
