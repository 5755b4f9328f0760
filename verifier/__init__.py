"""lipcert: proved Lipschitz bounds of ONNX networks, as certificates that anyone can check again.

    load(data)                 the network that ONNX bytes state
    inspect(data)              what was understood of it, as JSON
    verify(data, request)      a certificate of what the request asks
    check(certificate, data)   the independent checker's verdict on a certificate

Loads lazily: `import verifier.checker` pulls in numpy alone, and no name here costs anything before
it is used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from verifier.version import VERSION

if TYPE_CHECKING:
    from verifier.certificate import Certificate, Witness
    from verifier.certificate_json import certificate_text
    from verifier.certificate_reader import parse_certificate
    from verifier.checker import Verdict, check
    from verifier.errors import LipcertError
    from verifier.norms import Norm, NormPair
    from verifier.onnx_import import Model, load
    from verifier.property import Budget, Property, Request
    from verifier.regions import Ball, CenterBox, Clip, EndsBox, Everywhere
    from verifier.request_json import parse_request
    from verifier.verify import Progress, inspect, verify

__version__ = VERSION

__all__ = [
    "Ball",
    "Budget",
    "CenterBox",
    "Certificate",
    "Clip",
    "EndsBox",
    "Everywhere",
    "LipcertError",
    "Model",
    "Norm",
    "NormPair",
    "Progress",
    "Property",
    "Request",
    "Verdict",
    "Witness",
    "__version__",
    "certificate_text",
    "check",
    "inspect",
    "load",
    "parse_certificate",
    "parse_request",
    "verify",
]

_HOMES = {
    "Ball": "verifier.regions",
    "Budget": "verifier.property",
    "CenterBox": "verifier.regions",
    "Certificate": "verifier.certificate",
    "Clip": "verifier.regions",
    "EndsBox": "verifier.regions",
    "Everywhere": "verifier.regions",
    "LipcertError": "verifier.errors",
    "Model": "verifier.onnx_import",
    "Norm": "verifier.norms",
    "NormPair": "verifier.norms",
    "Progress": "verifier.verify",
    "Property": "verifier.property",
    "Request": "verifier.property",
    "Verdict": "verifier.checker",
    "Witness": "verifier.certificate",
    "certificate_text": "verifier.certificate_json",
    "check": "verifier.checker",
    "inspect": "verifier.verify",
    "load": "verifier.onnx_import",
    "parse_certificate": "verifier.certificate_reader",
    "parse_request": "verifier.request_json",
    "verify": "verifier.verify",
}


class _Face(ModuleType):
    """This package: importing the module `verifier.verify` does not hide the function `verify`."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "verify" and isinstance(value, ModuleType):
            value = value.verify
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face


def __getattr__(name: str) -> object:
    """A public name, from the module where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
