"""A Lipschitz bound as an assertion: the fixture `assert_lipschitz`, which pytest finds by itself.

    def test_the_network_is_smooth(assert_lipschitz):
        assert_lipschitz("model.onnx", max_bound=10.0, norm="l2")

It is a gate of one rule: certified within the budget, checked by the independent checker, compared.
An undecided rule fails, as it does in a gate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest

AssertLipschitz: TypeAlias = Callable[..., str]


@pytest.fixture(name="assert_lipschitz", scope="session")
def fixture() -> AssertLipschitz:
    """`assert_lipschitz(model, max_bound=..., ...)`."""
    return assert_lipschitz


def assert_lipschitz(
    model: str | Path | bytes,
    *,
    max_bound: float,
    norm: object = "l2",
    region: Mapping[str, object] | None = None,
    outputs: object = "all",
    method: str = "auto",
    seconds: float = 60.0,
    server: str | None = None,
) -> str:
    """Fails the test unless the constant is proved to be at most `max_bound`.

    Args:
        model: the ONNX file, or its bytes.
        max_bound: the most that the constant may be.
        norm: a name, or {"input": ..., "output": ...}.
        region: of a local bound, as in a request; global where there is none.
        outputs: as in a request.
        method: as in a request.
        seconds: the budget.
        server: the address of a service that proves; else a child of this process does.

    Returns:
        The certificate's id.
    """
    __tracebackhide__ = True
    # Here, not above: pytest loads this module in every session.
    from service import gate
    from verifier.request_json import parse_request

    request = parse_request(
        {
            "property": {
                "scope": "global" if region is None else "local",
                "norm": norm,
                "outputs": outputs,
                **({} if region is None else {"region": region}),
            },
            "method": method,
            "budget": {"seconds": seconds},
            "target": {"upper": max_bound},
        }
    )
    rule = gate.Rule(name="assert_lipschitz", request=request, max_bound=max_bound)
    data = model if isinstance(model, bytes) else Path(model).read_bytes()
    with gate.prover(server) as certify:
        (decided,) = gate.decide(data, [rule], None, certify).rules
    if decided.outcome != "pass" or decided.certificate is None:
        pytest.fail(
            f"the Lipschitz constant was not proved to be at most {max_bound!r}: "
            f"{decided.outcome}, {decided.reason}; bound {decided.bound!r}, "
            f"lower bound {decided.lower_bound!r}",
            pytrace=False,
        )
    return decided.certificate
