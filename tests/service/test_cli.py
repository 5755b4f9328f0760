"""The command line as its users meet it: processes, exit codes, and what is said where."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from service_process import eventually, exists, slowness

from service import child, child_work, cli
from service.child import Outcome
from service.failures import failure_of
from verifier.errors import WorkerLost

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
MODEL = str(EXAMPLES / "relu_mlp.onnx")
OTHER = str(EXAMPLES / "small_cnn.onnx")
DIGIT = str(EXAMPLES / "digit.npy")
QUICK = ("--method", "product", "--seconds", "5")

Done = subprocess.CompletedProcess[str]
Lipcert = Callable[..., Done]


def in_process(*arguments: str) -> Done:
    """Runs the command as its users do, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "service.cli", *arguments],
        capture_output=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        timeout=600,
    )


@pytest.fixture
def lipcert(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lipcert:
    """Runs the command in this process, its child included: torch is imported once for all."""

    def run(
        header: child.Json,
        model: bytes,
        _: float,
        show: Callable[[child.Json], None],
        kept: child.KeptFile | None = None,
    ) -> Outcome:
        assert kept is None
        outcome = Outcome()

        def answer(message: child.Json) -> None:
            child.take(json.loads(json.dumps(message)), outcome, show)

        child_work.work(header, model, b"", answer)
        return outcome

    def lipcert(*arguments: str) -> Done:
        capsys.readouterr()
        code = cli.run(list(arguments))
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    monkeypatch.setattr(child, "run", run)
    monkeypatch.chdir(ROOT)
    return lipcert


def refusal(done: Done) -> dict[str, str | None]:
    """The error object of a refusal with --json, whose members the interface fixes."""
    (name, error), *_ = json.loads(done.stdout).items()
    assert name == "error"
    assert set(error) == {"code", "title", "detail", "node", "fix"}
    return error


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of the first example."""
    path = tmp_path_factory.mktemp("cli") / "certificate.json"
    done = in_process("certify", MODEL, *QUICK, "--out", str(path))
    assert done.returncode == 0, done.stderr
    return path


def test_certify_says_the_bound_and_keeps_progress_apart(lipcert: Lipcert) -> None:
    done = lipcert("certify", MODEL, *QUICK)
    assert done.returncode == 0
    assert "bound" in done.stdout
    assert "lipcert: " in done.stderr
    assert "lipcert: " not in done.stdout


def test_certify_prints_the_certificate_as_json(lipcert: Lipcert) -> None:
    done = lipcert("certify", MODEL, *QUICK, "--json", "--norm", "linf,l2")
    printed = json.loads(done.stdout)
    assert done.returncode == 0
    assert printed["format"] == "lipcert/1"
    assert printed["claim"]["norm"] == {"input": "linf", "output": "l2"}
    digest = hashlib.sha256(Path(MODEL).read_bytes()).hexdigest()
    assert printed["claim"]["model"] == f"sha256:{digest}"
    schema = json.loads((ROOT / "verifier/schemas/certificate.json").read_text(encoding="utf-8"))
    Draft202012Validator(schema).validate(printed)


def test_certify_a_box_around_a_file(lipcert: Lipcert, tmp_path: Path) -> None:
    arguments = ("--norm", "linf", "--center", DIGIT, "--radius", "0.01", "--seconds", "5")
    out = tmp_path / "local.json"
    done = lipcert("certify", MODEL, *arguments, "--out", str(out))
    claim = json.loads(out.read_text(encoding="utf-8"))["claim"]
    assert done.returncode == 0, done.stderr
    assert claim["scope"] == "local"
    assert claim["region"]["radius"] == 0.01
    assert lipcert("check", str(out), "--model", MODEL).returncode == 0


def test_certify_a_spec(lipcert: Lipcert) -> None:
    spec = str(EXAMPLES / "request_local.json")
    done = lipcert("certify", MODEL, "--spec", spec, "--json", "--seconds", "5")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["claim"]["region"]["clip"] == {"lower": 0.0, "upper": 1.0}


def spec(tmp_path: Path, asked: dict[str, object]) -> str:
    """A spec file about the box of radius 0.01 around a digit."""
    region = {"type": "box", "center": DIGIT, "radius": 0.01}
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({"property": {"region": region, **asked}}), encoding="utf-8")
    return str(path)


def test_certify_a_jacobian(lipcert: Lipcert, tmp_path: Path) -> None:
    asked = spec(tmp_path, {"kind": "jacobian", "inputs": {"indices": [20, 21]}})
    out = tmp_path / "jacobian.json"
    done = lipcert("certify", MODEL, "--spec", asked, "--seconds", "5", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "local jacobian" in done.stdout
    assert "entry [9, 1]" in done.stdout
    assert json.loads(out.read_text(encoding="utf-8"))["claim"]["bounds"]["shape"] == [10, 2]
    checked = lipcert("check", str(out), "--model", MODEL)
    assert (checked.returncode, "10 x 2" in checked.stdout) == (0, True)


def test_certify_around_many_centers(lipcert: Lipcert, tmp_path: Path) -> None:
    centers = tmp_path / "centers.json"
    centers.write_text(json.dumps([[0.0] * 64, [0.5] * 64]), encoding="utf-8")
    arguments = ("--norm", "linf", "--centers", str(centers), "--radius", "0.01")
    done = lipcert("certify", MODEL, *arguments, "--seconds", "3")
    assert done.returncode == 0, done.stderr
    assert "quantiles    min " in done.stdout
    assert "center 1: " in done.stdout


def test_radius_of_a_digit(lipcert: Lipcert, tmp_path: Path) -> None:
    out = tmp_path / "radius.json"
    arguments = ("--center", DIGIT, "--seconds", "4", "--clip", "0,1", "--out", str(out))
    done = lipcert("radius", MODEL, *arguments)
    assert done.returncode == 0, done.stderr
    assert "center 0, label 8: radius 0.0" in done.stdout
    (ring,) = json.loads(out.read_text(encoding="utf-8"))["radii"]
    path = tmp_path / "certificate.json"
    path.write_text(json.dumps(ring["certificate"]), encoding="utf-8")
    assert lipcert("check", str(path), "--model", MODEL).returncode == 0
    wrong = lipcert("radius", MODEL, "--center", DIGIT, "--seconds", "1", "--label", "0")
    assert (wrong.returncode, "radius 0.0" in wrong.stdout) == (2, True)
    assert lipcert("radius", MODEL).returncode == 3
    assert lipcert("radius", MODEL, "--center", DIGIT, "--clip", "0").returncode == 3


@pytest.mark.parametrize(("direction", "code"), [("increasing", 0), ("decreasing", 1)])
def test_certify_a_sign(lipcert: Lipcert, tmp_path: Path, direction: str, code: int) -> None:
    """Around this digit output 0 grows with pixel 0."""
    sign = {"input": 0, "output": 0, "direction": direction}
    asked = spec(tmp_path, {"kind": "monotone", "monotone": sign})
    done = lipcert("certify", MODEL, "--spec", asked, "--seconds", "5")
    assert (done.returncode, done.stderr.count("Traceback")) == (code, 0)
    assert f"output 0 {direction} in input 0" in done.stdout


@pytest.mark.parametrize(
    ("factor", "verdict", "code"),
    [(1.0, "certified", 0), (1e-3, "violated", 1), (0.9, "undecided", 2)],
)
def test_certify_answers_about_the_target(
    lipcert: Lipcert, certificate: Path, factor: float, verdict: str, code: int
) -> None:
    """The product bound of this network is more than 1.2 times what is reached."""
    bound = json.loads(certificate.read_text(encoding="utf-8"))["claim"]["bound"]
    done = lipcert("certify", MODEL, *QUICK, "--target", repr(factor * bound), "--json")
    assert json.loads(done.stdout)["verdict"] == verdict
    assert done.returncode == code


def test_check_accepts_the_certificate(lipcert: Lipcert, certificate: Path) -> None:
    done = lipcert("check", str(certificate), "--model", MODEL)
    assert done.returncode == 0, done.stdout
    assert "valid" in done.stdout


def test_check_says_what_was_proved_as_json(lipcert: Lipcert, certificate: Path) -> None:
    done = lipcert("check", str(certificate), "--model", MODEL, "--json")
    printed = json.loads(done.stdout)
    assert printed["valid"] is True
    assert printed["proved"][0] <= json.loads(certificate.read_bytes())["claim"]["bound"]


def test_check_rejects_another_model(lipcert: Lipcert, certificate: Path) -> None:
    done = lipcert("check", str(certificate), "--model", OTHER, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == "model-mismatch"


def test_check_rejects_an_altered_certificate(
    lipcert: Lipcert, certificate: Path, tmp_path: Path
) -> None:
    text = certificate.read_text(encoding="utf-8")
    altered = tmp_path / "altered.json"
    altered.write_text(text.replace('"scope": "global"', '"scope": "local"'), encoding="utf-8")
    assert lipcert("check", str(altered), "--model", MODEL).returncode == 1


def test_check_rejects_what_is_no_certificate(lipcert: Lipcert) -> None:
    assert lipcert("check", DIGIT, "--model", MODEL).returncode == 1


def test_inspect_says_what_was_understood(lipcert: Lipcert) -> None:
    done = lipcert("inspect", MODEL, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    assert lipcert("inspect", MODEL).stdout


def test_gate_passes_and_reports(lipcert: Lipcert, tmp_path: Path) -> None:
    markdown, junit = tmp_path / "gate.md", tmp_path / "gate.xml"
    model, policy = str(EXAMPLES / "maxmin_mlp.onnx"), str(EXAMPLES / "policy.yaml")
    done = lipcert(
        "gate", model, "--policy", policy, "--markdown", str(markdown), "--junit", str(junit)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "gate: pass" in done.stdout
    assert "global-l2" in markdown.read_text(encoding="utf-8")
    assert "testcase" in junit.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("limit", "code"), [(1e6, 0), (1e-6, 1), (0.9, 2)], ids=["pass", "fail", "undecided"]
)
def test_gate_ends_with_its_code(
    lipcert: Lipcert, certificate: Path, tmp_path: Path, limit: float, code: int
) -> None:
    bound = json.loads(certificate.read_bytes())["claim"]["bound"]
    rule = {"name": "r", "max_bound": limit * bound, "method": "product", "budget": {"seconds": 5}}
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"version": 1, "rules": [rule]}), encoding="utf-8")
    done = lipcert("gate", MODEL, "--policy", str(policy), "--json")
    assert done.returncode == code, done.stdout
    assert json.loads(done.stdout)["outcome"] == ("pass", "fail", "undecided")[code]


MISUSE = [
    ("certify",),
    ("certify", "absent.onnx"),
    ("certify", str(EXAMPLES)),
    ("certify", MODEL, "--norm", "l7"),
    ("certify", MODEL, "--scope", "local"),
    ("certify", MODEL, "--center", DIGIT),
    ("certify", MODEL, "--center", DIGIT, "--radius", "0"),
    ("certify", MODEL, "--center", DIGIT, "--radius", "-0.5"),
    ("certify", MODEL, "--seconds", "soon"),
    ("certify", MODEL, "--seconds", "0"),
    ("certify", MODEL, "--bogus"),
    ("certify", MODEL, "--option", "bogus=1"),
    ("certify", MODEL, "--spec", MODEL),
    ("certify", DIGIT),
    ("inspect",),
    ("inspect", DIGIT),
    ("check", "absent.json", "--model", MODEL),
    ("check", DIGIT),
    ("gate", MODEL, "--policy", MODEL),
    ("gate", MODEL),
    ("serve", "--port", "many"),
    ("bogus",),
]


@pytest.mark.parametrize("arguments", MISUSE, ids=" ".join)
def test_misuse_is_refused_in_one_line(lipcert: Lipcert, arguments: tuple[str, ...]) -> None:
    done = lipcert(*arguments)
    said = [line for line in done.stderr.splitlines() if "Fix: " in line]
    assert done.returncode == 3
    assert len(said) == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [MISUSE[1], MISUSE[3], MISUSE[10], MISUSE[13]], ids=" ".join)
def test_misuse_is_an_object_with_json(lipcert: Lipcert, arguments: tuple[str, ...]) -> None:
    done = lipcert(*arguments, "--json")
    assert done.returncode == 3
    assert refusal(done)["fix"]


def test_region_of_the_wrong_length_is_refused(lipcert: Lipcert, tmp_path: Path) -> None:
    center = tmp_path / "center.json"
    center.write_text("[0.5, 0.5]", encoding="utf-8")
    done = lipcert("certify", MODEL, "--center", str(center), "--radius", "0.1", "--json")
    assert done.returncode == 3
    assert refusal(done)["code"] == "invalid-request"


@pytest.mark.parametrize("size", [0, 1, 100, 5000])
def test_truncated_model_is_refused(lipcert: Lipcert, tmp_path: Path, size: int) -> None:
    path = tmp_path / "truncated.onnx"
    path.write_bytes(Path(MODEL).read_bytes()[:size])
    assert lipcert("inspect", str(path), "--json").returncode == 3


def test_unwritable_output_is_refused(lipcert: Lipcert) -> None:
    done = lipcert("certify", MODEL, *QUICK, "--out", "/absent/certificate.json")
    assert done.returncode == 3
    assert "cannot be written" in done.stderr


def test_package_of_that_name_in_the_working_directory_is_not_imported(tmp_path: Path) -> None:
    for package in ("verifier", "service"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit(99)", encoding="utf-8")
    code = "import os, sys; os.chdir(sys.argv.pop(1)); from service.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(tmp_path), "inspect", MODEL],
        capture_output=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_killed_child_is_a_clean_failure() -> None:
    """What a machine without memory does to the child, done by hand."""
    command = [sys.executable, "-m", "service.cli", "certify", MODEL, "--json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        os.kill(child_of(parent.pid), signal.SIGKILL)
        stdout, _ = parent.communicate(timeout=300)
    assert parent.returncode == 4
    assert json.loads(stdout)["error"]["code"] == "resource-exhausted"


def test_killed_parent_takes_its_child_along() -> None:
    command = [sys.executable, "-m", "service.cli", "certify", MODEL, "--json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as parent:
        worker = child_of(parent.pid)
        parent.kill()
    eventually(lambda: not exists(worker))


def child_of(pid: int) -> int:
    """The first child of a process, as soon as it has one."""
    listing = Path(f"/proc/{pid}/task/{pid}/children")
    if not listing.exists():
        pytest.skip("this system does not list the children of a process")
    return int(eventually(lambda: listing.read_text(encoding="ascii").split())[0])


def answer_with(monkeypatch: pytest.MonkeyPatch, outcome: Outcome) -> None:
    """Has every run end with this outcome."""

    def certify(*_: object) -> Outcome:
        return outcome

    monkeypatch.setattr(child, "certify", certify)


def test_failure_ends_with_4(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = Outcome(failure=failure_of(WorkerLost("it died", fix="try again")))
    answer_with(monkeypatch, lost)
    assert cli.run(["certify", MODEL]) == 4
    assert "worker-lost: it died. Fix: try again" in capsys.readouterr().err


def test_bound_outlives_a_later_failure(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = Outcome(
        certificate=json.loads(certificate.read_bytes()),
        failure=failure_of(WorkerLost("it died", fix="try again")),
    )
    answer_with(monkeypatch, kept)
    assert cli.run(["certify", MODEL]) == 0
    said = capsys.readouterr()
    assert "the best bound is kept" in said.err
    assert "bound" in said.out


def test_interrupt_before_any_bound_ends_with_4(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer_with(monkeypatch, Outcome(interrupted=True))
    assert cli.run(["certify", MODEL]) == 4
    assert "interrupted" in capsys.readouterr().err


def test_check_starts_within_a_second(certificate: Path) -> None:
    """Processor time, as other processes share the machine; more on a machine that is slower."""
    before = os.times()
    done = in_process("check", str(certificate), "--model", MODEL)
    after = os.times()
    spent = after.children_user + after.children_system
    spent -= before.children_user + before.children_system
    assert done.returncode == 0
    assert spent < 1.0 * slowness()


def test_control_characters_of_a_model_do_not_reach_the_terminal() -> None:
    from service.terminal import plain

    assert plain("node\x1b[31m\n\u202ename") == "node [31m  name"
