"""The independent checker: certificate and model bytes in, verdict out.

    verdict = check(certificate, model)

It reads the ONNX file with its own reader and proves the claim again, with numpy and the standard
library. It shares the vocabulary (errors, norms, regions, property, certificate) with the rest of
the package, and nothing else. CERTIFICATE.md is its specification.
"""

from verifier.checker.api import check, check_raised, entry_bounds, witness_value
from verifier.checker.intervals import Interval
from verifier.checker.layers import Layer
from verifier.checker.radius import Robust, check_radius
from verifier.checker.verdict import Verdict

__all__ = [
    "Interval",
    "Layer",
    "Robust",
    "Verdict",
    "check",
    "check_radius",
    "check_raised",
    "entry_bounds",
    "witness_value",
]
