"""What quantisation makes of bounds: `python -m benchmarks.quantised FILE ...`.

Every file, with one input of a fixed shape, is quantised by onnxruntime in both of its forms
(QuantizeLinear and DequantizeLinear; operators on integers), calibrated on numbers in [0, 1], and
certified in l2 everywhere under `real-idealised`, next to the file itself. `nodes` counts what is
rounded, `step` is the largest deviation of one. LIPCERT_SECONDS is the budget of a certificate (5).
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx
from onnxruntime import quantization

from benchmarks.table import Table
from verifier import LipcertError, check, parse_request, verify
from verifier.certificate import Certificate

CALIBRATION = 8  #: inputs


def main() -> None:
    """Prints the table."""
    table = Table(file=36, form=9, method=8, float_bound=11, bound=11, nodes=5, step=9, seconds=7)
    for name in sys.argv[1:]:
        data = Path(name).read_bytes()
        for form, quantised in forms(data):
            for method in ("product", "lipsdp"):
                whole = answered(data, method, "real")
                started = perf_counter()
                found = answered(quantised, method, "real-idealised")
                seconds = perf_counter() - started
                table.row(
                    [Path(name).name[:36], form, method, _bound(whole), *_row(found), seconds]
                )


def forms(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The file, quantised in either form."""
    model = onnx.load_model_from_string(data)
    weights = {tensor.name for tensor in model.graph.initializer}
    entering = next(value for value in model.graph.input if value.name not in weights)
    shape = [dim.dim_value or 1 for dim in entering.type.tensor_type.shape.dim]
    rng = np.random.default_rng(0)
    for form in (quantization.QuantFormat.QDQ, quantization.QuantFormat.QOperator):
        rows = [{entering.name: rng.random(shape, np.float32)} for _ in range(CALIBRATION)]
        with tempfile.TemporaryDirectory() as folder:
            source, made = Path(folder) / "float.onnx", Path(folder) / "quantised.onnx"
            source.write_bytes(data)
            quantization.quantize_static(source, made, _Rows(rows), quant_format=form)
            yield form.name, made.read_bytes()


class _Rows(quantization.CalibrationDataReader):
    """Inputs, one after another."""

    def __init__(self, rows: list[dict[str, np.ndarray]]) -> None:
        self._rows = iter(rows)

    def get_next(self) -> Mapping[str, Any] | None:  # pyright: ignore[reportIncompatibleMethodOverride]  # None is the end
        """The next one."""
        return next(self._rows, None)


def answered(data: bytes, method: str, semantics: str) -> Certificate | str:
    """The certificate that the checker accepts, or the code that takes it away."""
    budget = {"seconds": float(os.environ.get("LIPCERT_SECONDS", "5"))}
    asked = {"method": method, "semantics": semantics, "budget": budget}
    try:
        found = verify(data, parse_request(asked))
    except LipcertError as error:
        return error.code
    return found if check(found, data).valid else "check-rejected"


def _bound(found: Certificate | str) -> float | str | None:
    return found if isinstance(found, str) else found.claim.bound


def _row(found: Certificate | str) -> list[float | str | None]:
    if isinstance(found, str):
        return [found, None, None]
    listed = found.claim.idealised
    return [found.claim.bound, str(len(listed)), max((one.absolute for one in listed), default=0.0)]


if __name__ == "__main__":
    main()
