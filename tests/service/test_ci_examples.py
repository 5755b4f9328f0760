"""The examples for GitHub and GitLab, as far as one machine can run them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import pytest
import yaml

from service.routes.submitting import preference_of
from service.schemas.gates import GateBody, Outcome

ROOT = Path(__file__).parents[2]
CI = ROOT / "examples/ci"
MODEL = ROOT / "examples/maxmin_mlp.onnx"


@pytest.mark.parametrize(("most", "code"), [(1.01, 0), (0.01, 1)])
def test_the_script_of_both_runs_the_gate(most: float, code: int, tmp_path: Path) -> None:
    rule = {"name": "one", "property": {"norm": "l2"}, "method": "product", "max_bound": most}
    policy = tmp_path / "policy.yaml"
    policy.write_text(yaml.safe_dump({"version": 1, "rules": [rule]}), encoding="utf-8")
    command = tmp_path / "bin/lipcert"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m service.cli "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    done = subprocess.run(
        ["/bin/bash", str(CI / "gate.sh")],
        env={
            **os.environ,
            "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "MODEL": str(MODEL),
            "POLICY": str(policy),
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        },
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    assert json.loads((tmp_path / "lipcert.sarif").read_text(encoding="utf-8"))["runs"]
    ElementTree.parse(tmp_path / "lipcert.xml")  # noqa: S314 - our own text
    assert "lipcert gate" in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_the_action_and_the_template_are_well_formed() -> None:
    action: Any = yaml.safe_load((CI / "action.yml").read_text(encoding="utf-8"))
    assert action["runs"]["using"] == "composite"
    for step in action["runs"]["steps"]:
        # What a workflow passes in reaches the shell by the environment, never as text of a script.
        assert "${{" not in step["run"]
        assert step["shell"] == "bash"
    assert set(action["inputs"]) == {"model", "policy", "server", "package"}
    template: Any = yaml.safe_load((CI / "gitlab.yml").read_text(encoding="utf-8"))
    assert {"MODEL", "POLICY", "SERVER"} <= set(template["lipcert"]["variables"])
    assert template["lipcert"]["artifacts"]["reports"]["junit"] == "lipcert.xml"


def test_the_metric_for_argo_reads_what_a_gate_has() -> None:
    """Its shape alone: there is no cluster here."""
    template: Any = yaml.safe_load((CI / "argo.yaml").read_text(encoding="utf-8"))
    (metric,) = template["spec"]["metrics"]
    web = metric["provider"]["web"]
    assert web["jsonPath"] == "{$.outcome}"
    assert "outcome" in GateBody.model_fields
    conditions = f"{metric['successCondition']} {metric['failureCondition']}"
    told = set(re.findall(r'"(\w+)"', conditions))
    assert told | {"pending"} == set(get_args(Outcome))
    assert preference_of(web["headers"][1]["value"]).wait_s == 60 < web["timeoutSeconds"]
