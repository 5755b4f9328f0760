"""Signed certificates: who vouches, verified by another library; nothing forged gets through."""

import base64
import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope as ForeignEnvelope
from securesystemslib.signer import Key  # pyright: ignore[reportPrivateImportUsage] - its __all__ is missing
from service_fakes import model
from service_process import Service, problem, settings_in

from service import cli
from service.gate import Decision, RuleDecision
from service.serve import require_published_key
from service.settings import Settings
from service.signing import (
    PAYLOAD_TYPE,
    BadEnvelope,
    certificate_statement,
    gate_statement,
    read_envelope,
    sign,
)
from service.signing_keys import (
    make_private_key,
    read_private_key,
    read_trusted_keys,
    with_new_key,
    with_retired,
    write_trusted_keys,
)
from verifier import parse_request, verify
from verifier.certificate_json import certificate_text
from verifier.errors import InvalidRequest

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples/relu_mlp.onnx"

Done = subprocess.CompletedProcess[str]
Lipcert = Callable[..., Done]
Json = dict[str, Any]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of the first example."""
    path = tmp_path_factory.mktemp("signing") / "certificate.json"
    request = parse_request({"property": {"norm": "l2"}, "method": "product"})
    path.write_text(certificate_text(verify(MODEL.read_bytes(), request)), encoding="utf-8")
    return path


@pytest.fixture
def lipcert(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Lipcert:
    monkeypatch.delenv("LIPCERT_SIGNING_KEY", raising=False)
    monkeypatch.delenv("LIPCERT_TRUSTED_KEYS", raising=False)

    def lipcert(*arguments: object) -> Done:
        capsys.readouterr()
        code = cli.run([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return subprocess.CompletedProcess((), code, said.out, said.err)

    return lipcert


@pytest.fixture
def keys(tmp_path: Path, lipcert: Lipcert) -> tuple[Path, Path]:
    """A private key, and the key set with its public key."""
    private, trusted = tmp_path / "key.pem", tmp_path / "keys.json"
    done = lipcert("signing-keys", "new", "--key", private, "--trusted", trusted)
    assert done.returncode == 0, done.stderr
    return private, trusted


def signed(lipcert: Lipcert, certificate: Path, private: Path) -> Path:
    out = private.with_name("envelope.json")
    done = lipcert("sign", certificate, "--model", MODEL, "--key", private, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def checked(lipcert: Lipcert, file: Path, *more: object) -> Json:
    done = lipcert("check", file, "--model", MODEL, "--json", *more)
    verdict: Json = json.loads(done.stdout)
    assert done.returncode == (0 if verdict.get("valid") else 1), done.stdout
    return verdict


def foreign_key(trusted: Path) -> Key:
    """The first public key of a set, as another library holds it."""
    entry = json.loads(trusted.read_text(encoding="utf-8"))["keys"][0]
    public = base64.b64decode(entry["public_key"]).hex()
    key = {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": public}}
    return Key.from_dict(entry["keyid"], key)


def test_another_library_verifies_a_signed_certificate(
    lipcert: Lipcert, certificate: Path, keys: tuple[Path, Path]
) -> None:
    envelope = json.loads(signed(lipcert, certificate, keys[0]).read_text(encoding="utf-8"))
    foreign = ForeignEnvelope.from_dict(envelope)
    key = foreign_key(keys[1])
    assert set(foreign.verify([key], 1)) == {key.keyid}
    statement = json.loads(foreign.payload)
    claimed = json.loads(certificate.read_text(encoding="utf-8"))
    assert foreign.payload_type == PAYLOAD_TYPE
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicate"]["id"] == claimed["id"]
    (subject,) = statement["subject"]
    model = hashlib.sha256(MODEL.read_bytes()).hexdigest()
    assert subject == {"name": "relu_mlp.onnx", "digest": {"sha256": model}}


def test_a_signed_certificate_is_checked_like_a_bare_one(
    lipcert: Lipcert, certificate: Path, keys: tuple[Path, Path]
) -> None:
    envelope = signed(lipcert, certificate, keys[0])
    (entry,) = read_trusted_keys(keys[1])
    bare, unverified = checked(lipcert, certificate), checked(lipcert, envelope)
    verified = checked(lipcert, envelope, "--key", keys[1])
    assert bare == unverified | {"signature": None} == verified | {"signature": None}
    assert unverified["signature"] == {"keyid": entry.keyid, "state": None}
    assert verified["signature"] == {"keyid": entry.keyid, "state": "current"}


def test_the_environment_names_keys(
    lipcert: Lipcert, certificate: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIPCERT_SIGNING_KEY", str(keys[0]))
    monkeypatch.setenv("LIPCERT_TRUSTED_KEYS", str(keys[1]))
    envelope = keys[0].with_name("envelope.json")
    done = lipcert("sign", certificate, "--model", MODEL, "--name", "mine", "--out", envelope)
    assert done.returncode == 0, done.stderr
    assert checked(lipcert, envelope)["valid"]
    assert checked(lipcert, certificate)["code"] == "unsigned"
    assert "key " in lipcert("check", envelope, "--model", MODEL).stdout


def test_a_key_in_pem_verifies_too(
    lipcert: Lipcert, certificate: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    envelope = signed(lipcert, certificate, keys[0])
    public = read_private_key(keys[0]).public_key()
    pem = tmp_path / "key.pub"
    pem.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert checked(lipcert, envelope, "--key", pem)["valid"]


def test_rotation_keeps_what_the_old_key_signed(
    lipcert: Lipcert, certificate: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    old = signed(lipcert, certificate, keys[0])
    before = [key.keyid for key in read_trusted_keys(keys[1])]
    successor = tmp_path / "next.pem"
    lipcert("signing-keys", "new", "--key", successor, "--trusted", keys[1], "--days", 30)
    done = lipcert("signing-keys", "retire", before[0][:12], "--trusted", keys[1])
    assert done.returncode == 0, done.stderr
    listed = lipcert("signing-keys", "list", "--trusted", keys[1]).stdout.splitlines()
    assert [line.split()[1] for line in listed] == ["retired", "current"]
    assert checked(lipcert, old, "--key", keys[1])["signature"]["state"] == "retired"
    new = signed(lipcert, certificate, successor)
    assert checked(lipcert, new, "--key", keys[1])["signature"]["state"] == "current"


def test_a_stranger_is_not_trusted(
    lipcert: Lipcert, certificate: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    lipcert(
        "signing-keys", "new", "--key", tmp_path / "evil.pem", "--trusted", tmp_path / "evil.json"
    )
    envelope = signed(lipcert, certificate, tmp_path / "evil.pem")
    verdict = checked(lipcert, envelope, "--key", keys[1])
    assert (verdict["valid"], verdict["code"]) == (False, "signature-rejected")
    # A stranger who names a trusted key has still not signed with it.
    forged = json.loads(envelope.read_text(encoding="utf-8"))
    forged["signatures"][0]["keyid"] = read_trusted_keys(keys[1])[0].keyid
    envelope.write_text(json.dumps(forged), encoding="utf-8")
    assert checked(lipcert, envelope, "--key", keys[1])["code"] == "signature-rejected"


def test_an_altered_payload_is_rejected(
    lipcert: Lipcert, certificate: Path, keys: tuple[Path, Path]
) -> None:
    path = signed(lipcert, certificate, keys[0])
    envelope = json.loads(path.read_text(encoding="utf-8"))
    statement = json.loads(base64.b64decode(envelope["payload"]))
    statement["subject"][0]["name"] = "another"
    envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    path.write_text(json.dumps(envelope), encoding="utf-8")
    assert checked(lipcert, path, "--key", keys[1])["code"] == "signature-rejected"


def test_a_signature_does_not_make_a_false_claim_true(
    lipcert: Lipcert, certificate: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    lie = json.loads(certificate.read_text(encoding="utf-8"))
    lie["claim"]["bound"] /= 2
    false = tmp_path / "false.json"
    false.write_text(json.dumps(lie), encoding="utf-8")
    refused = lipcert("sign", false, "--model", MODEL, "--key", keys[0], "--out", tmp_path / "no")
    assert refused.returncode == 3
    assert not (tmp_path / "no").exists()
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "m", "digest": {"sha256": lie["claim"]["model"][7:]}}],
        "predicateType": "urn:lipcert:lipschitz-certificate:v1",
        "predicate": lie,
    }
    path = tmp_path / "envelope.json"
    path.write_text(json.dumps(sign(statement, read_private_key(keys[0]))), encoding="utf-8")
    verdict = checked(lipcert, path, "--key", keys[1])
    assert not verdict["valid"]
    assert verdict["signature"]["state"] == "current"


@pytest.mark.parametrize(
    "change",
    [
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"predicateType": "https://slsa.dev/verification_summary/v1"},
        {"subject": []},
        {"subject": [{"name": "m", "digest": {"sha256": "00"}}]},
        {"predicate": []},
    ],
)
def test_only_a_statement_about_its_model_is_opened(
    change: Json, lipcert: Lipcert, certificate: Path, keys: tuple[Path, Path]
) -> None:
    path = signed(lipcert, certificate, keys[0])
    envelope = json.loads(path.read_text(encoding="utf-8"))
    statement = json.loads(base64.b64decode(envelope["payload"])) | change
    path.write_text(json.dumps(sign(statement, read_private_key(keys[0]))), encoding="utf-8")
    assert checked(lipcert, path, "--key", keys[1])["code"] == "malformed"


@given(st.recursive(st.none() | st.text(max_size=5) | st.integers(), st.lists, max_leaves=4))
@settings(max_examples=50)
def test_what_is_no_envelope_is_refused(value: object) -> None:
    for members in (
        {"payloadType": value, "payload": "", "signatures": [{"sig": ""}]},
        {"payloadType": PAYLOAD_TYPE, "payload": value, "signatures": [{"sig": value}]},
        {"payloadType": PAYLOAD_TYPE, "payload": "", "signatures": value},
    ):
        try:
            envelope = read_envelope(json.dumps(members).encode())
        except BadEnvelope:
            continue
        assert envelope is not None
        with pytest.raises(BadEnvelope):
            envelope.certificate()
    assert read_envelope(json.dumps(value).encode()) is None


def test_keys_are_kept_from_others(keys: tuple[Path, Path], lipcert: Lipcert) -> None:
    private, trusted = keys
    assert private.stat().st_mode & 0o077 == 0
    again = lipcert("signing-keys", "new", "--key", private, "--trusted", trusted)
    assert again.returncode == 3  # a key is never overwritten
    private.chmod(0o640)
    with pytest.raises(InvalidRequest, match="others may read"):
        read_private_key(private)
    assert b"PRIVATE" not in trusted.read_bytes()


@pytest.mark.parametrize("text", ["", "{}", '{"keys": [{"keyid": "00"}]}', "-----BEGIN NOTHING"])
def test_what_holds_no_keys_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidRequest, match="no trusted keys"):
        read_trusted_keys(path)


def test_a_key_set_whose_id_lies_is_refused(keys: tuple[Path, Path]) -> None:
    members = json.loads(keys[1].read_text(encoding="utf-8"))
    members["keys"][0]["keyid"] = "00" * 32
    keys[1].write_text(json.dumps(members), encoding="utf-8")
    with pytest.raises(InvalidRequest, match="is not that of its public key"):
        read_trusted_keys(keys[1])


@pytest.mark.parametrize(
    ("outcome", "result"), [("pass", "PASSED"), ("fail", "FAILED"), ("undecided", "FAILED")]
)
def test_a_gates_decision_is_a_verification_summary(
    outcome: str, result: str, keys: tuple[Path, Path]
) -> None:
    rule = RuleDecision(
        name="one",
        outcome=outcome,  # pyright: ignore[reportArgumentType] - one of the three
        max_bound=1.0,
        reason="",
        is_blocking=outcome != "pass",
        certificate="sha256:" + "ab" * 32,
    )
    decision = Decision(model="sha256:" + "cd" * 32, outcome=outcome, exit_code=0, rules=(rule,))  # pyright: ignore[reportArgumentType] - one of the three
    envelope = sign(gate_statement(decision, b"policy", "m.onnx"), read_private_key(keys[0]))
    foreign = ForeignEnvelope.from_dict(json.loads(json.dumps(envelope)))
    assert foreign.verify([foreign_key(keys[1])], 1)
    statement = json.loads(foreign.payload)
    predicate = statement["predicate"]
    assert statement["predicateType"] == "https://slsa.dev/verification_summary/v1"
    assert statement["subject"][0]["digest"] == {"sha256": "cd" * 32}
    assert predicate["verificationResult"] == result
    assert predicate["policy"]["digest"] == {"sha256": hashlib.sha256(b"policy").hexdigest()}
    assert predicate["inputAttestations"][0]["digest"] == {"sha256": "ab" * 32}


def test_a_gate_writes_its_signed_decision(
    lipcert: Lipcert, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    rule = "{name: one, property: {norm: l2}, method: product, max_bound: 1000}"
    policy.write_text(f"version: 1\nrules: [{rule}]\n", encoding="utf-8")
    out = tmp_path / "vsa.json"
    arguments = ("gate", MODEL, "--policy", policy, "--attestation", out)
    assert lipcert(*arguments).returncode == 3  # no key, known before any work
    done = lipcert(*arguments, "--sign-key", keys[0])
    assert done.returncode == 0, done.stderr
    envelope = read_envelope(out.read_bytes())
    assert envelope is not None
    envelope.verify(read_trusted_keys(keys[1]))
    assert json.loads(envelope.payload)["predicate"]["verificationResult"] == "PASSED"


# --- The service signs ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Path]]:
    """A service that signs, and the key set that it publishes."""
    folder = tmp_path_factory.mktemp("signing-service")
    private, trusted = folder / "key.pem", folder / "keys.json"
    write_trusted_keys(trusted, with_new_key((), make_private_key(private).public_key(), None))
    settings = replace(settings_in(folder), signing_key=private, trusted_keys=trusted)
    running = Service(settings)
    yield running, trusted
    running.close()


def test_the_service_signs_what_the_checker_accepted(signing: tuple[Service, Path]) -> None:
    service, trusted = signing
    job = service.submit(service.upload(model("signed")), wait=30)
    path = f"/v1/certificates/{job['certificate']}"
    bare = service.client.get(path)
    answer = service.client.get(path, headers={"Accept": PAYLOAD_TYPE})
    assert answer.headers["content-type"] == PAYLOAD_TYPE
    assert answer.headers["etag"] != bare.headers["etag"]
    foreign = ForeignEnvelope.from_dict(answer.json())
    assert foreign.verify([foreign_key(trusted)], 1)
    statement = json.loads(foreign.payload)
    assert statement["predicate"] == bare.json()
    key = read_private_key(trusted.with_name("key.pem"))
    same = certificate_statement(bare.json(), bare.json()["claim"]["model"])
    assert sign(same, key) == answer.json()
    published = service.client.get("/v1/public-keys").json()
    assert published == json.loads(trusted.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("most", "result"), [(5.0, "PASSED"), (0.5, "FAILED")])
def test_the_service_signs_what_a_gate_decided(
    most: float, result: str, signing: tuple[Service, Path]
) -> None:
    service, trusted = signing
    policy = {"version": 1, "rules": [{"name": "one", "max_bound": most}]}
    stored = service.client.put("/v1/policies/signed", json=policy).json()
    body = {"model": service.upload(model("gated")), "policy": "signed"}
    gate = service.client.post("/v1/gates", json=body, headers={"Prefer": "wait=30"}).json()
    answer = service.client.get(f"/v1/gates/{gate['id']}/attestation")
    assert answer.headers["content-type"] == "application/vnd.in-toto+json"
    envelope = ForeignEnvelope.from_dict(answer.json())
    assert envelope.verify([foreign_key(trusted)], 1)
    statement = json.loads(envelope.payload)
    predicate = statement["predicate"]
    assert f"sha256:{statement['subject'][0]['digest']['sha256']}" == body["model"]
    assert predicate["verificationResult"] == result
    assert predicate["policy"] == {
        "uri": f"urn:lipcert:policy:signed@{stored['version']}",
        "digest": {"sha256": stored["digest"].removeprefix("sha256:")},
    }
    (attested,) = predicate["inputAttestations"]
    assert f"sha256:{attested['digest']['sha256']}" == gate["rules"][0]["certificate"]


def test_the_service_checks_envelopes(signing: tuple[Service, Path]) -> None:
    service, _ = signing
    job = service.submit(service.upload(model("checked")), wait=30)
    path = f"/v1/certificates/{job['certificate']}"
    envelope = service.client.get(path, headers={"Accept": PAYLOAD_TYPE}).json()
    said = service.client.post("/v1/certificates/check", json={"certificate": envelope}).json()
    assert said["valid"]
    assert said["signature"]["state"] == "current"
    assert said["digest"] == job["certificate"]
    envelope["signatures"][0]["sig"] = base64.b64encode(b"x" * 64).decode()
    said = service.client.post("/v1/certificates/check", json={"certificate": envelope}).json()
    assert said["valid"]  # the claim is as true as before, and nobody vouches for it
    assert said["signature"]["state"] is None
    envelope["payload"] = "e30="
    said = service.client.post("/v1/certificates/check", json={"certificate": envelope}).json()
    assert (said["valid"], said["code"]) == (False, "malformed")


def test_a_service_without_a_key_says_that_nothing_is_signed(service: Service) -> None:
    job = service.submit(service.upload(model("unsigned")), wait=30)
    path = f"/v1/certificates/{job['certificate']}"
    answer = service.client.get(path, headers={"Accept": PAYLOAD_TYPE})
    assert (answer.status_code, problem(answer)["code"]) == (406, "not-acceptable")
    assert service.client.get("/v1/public-keys").json() == {"keys": []}


def test_what_signs_has_to_be_published(keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, trusted = keys
    settings = Settings(data=tmp_path, signing_key=private)
    with pytest.raises(InvalidRequest, match="is not in the published"):
        require_published_key(settings)
    settings = replace(settings, trusted_keys=trusted)
    require_published_key(settings)
    known = read_trusted_keys(trusted)
    write_trusted_keys(trusted, with_retired(known, known[0].keyid, datetime.now(UTC)))
    with pytest.raises(InvalidRequest, match="is retired in the published"):
        require_published_key(settings)
