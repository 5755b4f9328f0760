"""Certificates, their check, and the keys that sign them."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.schemas.request import Body, ModelId


class CertificateBody(BaseModel):
    """A claim and its proof; in full `GET /v1/schemas/certificate` says what stands where."""

    model_config = ConfigDict(extra="allow")

    format: Literal["lipcert/1"]
    claim: dict[str, object]
    lower_bound: dict[str, object] | None
    target: dict[str, object] | None
    soundness: Literal["exact", "rigorous"]
    verdict: Literal["certified", "violated", "undecided"] | None
    proof: dict[str, object]
    attempts: list[dict[str, object]]
    producer: dict[str, object]
    resources: dict[str, object]


class EnvelopeOfCertificateBody(BaseModel):
    """DSSE: an in-toto statement about a model, in base64, and who signed it."""

    payloadType: Literal["application/vnd.in-toto+json"]  # noqa: N815 - DSSE's name
    payload: str
    signatures: list[dict[str, str]]


class CertificateSummaryBody(BaseModel):
    """A certificate in a list."""

    id: str
    model: ModelId
    kind: str
    scope: str
    size: int
    created: datetime
    bound: float | None
    log10_bound: float | None
    lower: float | None
    soundness: str
    proof: str


class CheckBody(Body):
    """A certificate to check again. Without `model` it is checked against the model it names."""

    certificate: dict[str, object] = Field(description="bare, or in a signed envelope")
    model: ModelId | None = None


class SignatureBody(BaseModel):
    """Who signed an envelope."""

    keyid: str
    state: Literal["current", "retired", "not yet valid"] | None = Field(
        description="of the key; null: none that this service trusts has signed"
    )


class PublicKeyBody(BaseModel):
    """A key that verifies what this service signed."""

    keyid: str
    type: Literal["ed25519"]
    public_key: str = Field(description="base64 of 32 bytes")
    not_before: datetime | None
    not_after: datetime | None


class PublicKeysBody(BaseModel):
    """The key set of this service, the retired keys too."""

    keys: list[PublicKeyBody]


class CheckAnswerBody(BaseModel):
    """What the independent checker says."""

    valid: bool
    digest: str | None = Field(description="the certificate's id; null where it is malformed")
    reason: str
    code: str
    signature: SignatureBody | None = Field(description="null where no envelope was given")


class CertificateListBody(BaseModel):
    """A page of certificates."""

    items: list[CertificateSummaryBody]
    next_cursor: str | None
