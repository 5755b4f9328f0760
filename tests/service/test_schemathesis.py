"""The service keeps its contract, whatever is sent: all checks of schemathesis, seeded and short.

`make contract` runs thousands of cases.
"""

from collections.abc import Callable
from pathlib import Path

import schemathesis_run
from service_process import Service

#: Bodies of requests have thousands of combinations: random ones have to do here.
SHORT = """
[[operations]]
include-method = ["POST", "PUT"]
phases.coverage.enabled = false
"""

SEED = ("--seed", "20260101", "--max-examples")


def _config(folder: Path) -> Path:
    path = folder / "schemathesis.toml"
    path.write_text(schemathesis_run.CONFIG.read_text(encoding="utf-8") + SHORT, encoding="utf-8")
    return path


def test_the_contract_is_kept_without_keys(service: Service, tmp_path: Path) -> None:
    ran = schemathesis_run.run(service, (*SEED, "3"), config=_config(tmp_path))
    assert ran.is_clean, ran.said
    assert 100 < ran.cases


def test_the_contract_is_kept_with_keys(
    own_service: Callable[..., Service], tmp_path: Path
) -> None:
    service = own_service()
    key = schemathesis_run.make_key(service)
    phases = ("--phases", "coverage,stateful")
    ran = schemathesis_run.run(service, (*SEED, "1", *phases), key, _config(tmp_path))
    assert ran.is_clean, ran.said
    assert 100 < ran.cases
    answer = service.client.get("/v1/keys", headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 200, "the run has shut itself out"
