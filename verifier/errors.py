"""What can go wrong, by whose doing.

    LipcertError
    +- ModelRefused          the file is not a model that can be read
    |  +- FileTooLarge, NotOnnx, UnknownField, OpsetUnsupported, ExternalData, TensorSizeMismatch,
    |  |  AmbiguousTensor, NonFiniteWeights, DtypeUnsupported, OpUnsupported, CustomOp, ControlFlow,
    |  |  NonDeterministicOp, TrainingModeOp, OverridableInitializer, DynamicShape, DuplicateName,
    |  |  UndefinedName, GraphCycle, EmptyModel, InvalidName, InvalidAttribute, ShapeMismatch,
    |  |  TooManyNodes, ExpansionTooLarge, ImportMismatch
    +- CapabilityBlocked     the model was read; a node takes this answer from it
    |  +- DiscontinuousOp, NotLipschitzGlobally, NotLipschitzOnRegion, NotCheckable, PatternRefuted
    +- RequestRefused        the model may be fine, the question is not
    |  +- InvalidRequest, RegionEmptyInterior, TooLarge
    +- JobFailed             model and question were fine, and still no bound was proved
       +- CheckRejected, OutOfBudget, ResourceExhausted, WorkerLost

An answer is not an error: "undecided" and a rejected certificate are values. Every class has a
`code` that never changes; its docstring's first line is the `title`; an instance says what was
met (`detail`), where (`node`, where there is one) and what to do (`fix`).
"""

from collections.abc import Iterator
from typing import ClassVar


class LipcertError(Exception):
    """Something that a user can cause, or has to be told."""

    code: ClassVar[str] = "error"

    def __init__(self, detail: str, *, fix: str, node: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fix = fix
        self.node = node

    @property
    def title(self) -> str:
        """The class's one line."""
        return (type(self).__doc__ or "").splitlines()[0]

    def to_json(self) -> dict[str, str | None]:
        """The refusal object of the interface: code, title, detail, node, fix."""
        return {
            "code": self.code,
            "title": self.title,
            "detail": self.detail,
            "node": self.node,
            "fix": self.fix,
        }


# --- The model file -----------------------------------------------------------------------------


class ModelRefused(LipcertError):
    """The file is not a model that can be read."""

    code = "model-refused"


class FileTooLarge(ModelRefused):
    """The file has more bytes than allowed."""

    code = "file-too-large"


class NotOnnx(ModelRefused):
    """The file is not an ONNX model."""

    code = "not-onnx"


class UnknownField(ModelRefused):
    """The file has a field that ONNX does not define."""

    code = "unknown-field"


class OpsetUnsupported(ModelRefused):
    """The file's IR version or opset is not supported."""

    code = "ir-or-opset-unsupported"


class ExternalData(ModelRefused):
    """The file keeps weights outside itself."""

    code = "external-data"


class TensorSizeMismatch(ModelRefused):
    """A tensor's data does not have the size that its shape says."""

    code = "tensor-size-mismatch"


class AmbiguousTensor(ModelRefused):
    """A tensor states its data twice, or in segments."""

    code = "ambiguous-tensor"


class NonFiniteWeights(ModelRefused):
    """A weight or attribute is nan or infinite, or becomes so."""

    code = "non-finite-weights"


class DtypeUnsupported(ModelRefused):
    """A tensor's element type is not supported."""

    code = "unsupported-dtype"


class OpUnsupported(ModelRefused):
    """An operator is not supported."""

    code = "unsupported-op"


class CustomOp(ModelRefused):
    """An operator comes from a domain that is not supported."""

    code = "custom-op"


class ControlFlow(ModelRefused):
    """The graph has control flow."""

    code = "control-flow"


class NonDeterministicOp(ModelRefused):
    """An operator's result is not determined by its inputs."""

    code = "non-deterministic-op"


class TrainingModeOp(ModelRefused):
    """An operator is in training mode."""

    code = "training-mode-op"


class OverridableInitializer(ModelRefused):
    """A weight is also a graph input, so that callers may replace it."""

    code = "overridable-initializer"


class DynamicShape(ModelRefused):
    """A dimension other than the leading batch is not fixed."""

    code = "dynamic-shape"


class DuplicateName(ModelRefused):
    """Two values of the graph have one name."""

    code = "duplicate-name"


class UndefinedName(ModelRefused):
    """A node reads a value that nothing defines."""

    code = "undefined-name"


class GraphCycle(ModelRefused):
    """The graph has a cycle."""

    code = "graph-cycle"


class EmptyModel(ModelRefused):
    """The model has no graph, no input or no output."""

    code = "empty-model"


class InvalidName(ModelRefused):
    """A name is too long or has control characters."""

    code = "invalid-name"


class InvalidAttribute(ModelRefused):
    """An operator's attribute is missing, unknown or out of range."""

    code = "invalid-attribute"


class ShapeMismatch(ModelRefused):
    """Shapes do not fit together, or contradict those declared."""

    code = "shape-mismatch"


class TooManyNodes(ModelRefused):
    """The graph has more nodes than allowed."""

    code = "too-many-nodes"


class ExpansionTooLarge(ModelRefused):
    """A value computed while reading would be larger than allowed."""

    code = "expansion-too-large"


class ImportMismatch(ModelRefused):
    """The network as understood and onnxruntime disagree."""

    code = "import-mismatch"


# --- A capability of a model that was read -------------------------------------------------------


class CapabilityBlocked(LipcertError):
    """The model was read, and a node takes this answer from it."""

    code = "capability-blocked"


class DiscontinuousOp(CapabilityBlocked):
    """The function jumps, so that it has no Lipschitz constant."""

    code = "discontinuous-op"


class NotLipschitzGlobally(CapabilityBlocked):
    """The function has no global Lipschitz constant; a local bound can exist."""

    code = "not-lipschitz-globally"


class NotLipschitzOnRegion(CapabilityBlocked):
    """A node's slopes have no bound that is known on the region; on a smaller one they can have."""

    code = "not-lipschitz-on-region"


class NotCheckable(CapabilityBlocked):
    """The independent checker cannot read this, and nothing unchecked is issued."""

    code = "not-checkable"


class PatternRefuted(CapabilityBlocked):
    """A proof calls a part of the graph a pattern that it is not."""

    code = "pattern-refuted"


# --- The question --------------------------------------------------------------------------------


class RequestRefused(LipcertError):
    """The question cannot be answered as it was put."""

    code = "request-refused"


class InvalidRequest(RequestRefused):
    """The request is malformed, or asks for what does not exist."""

    code = "invalid-request"

    def __init__(
        self, detail: str, *, fix: str, pointer: str = "", node: str | None = None
    ) -> None:
        super().__init__(detail, fix=fix, node=node)
        self.pointer = pointer  #: JSON pointer (RFC 6901) to the offending member


class RegionEmptyInterior(RequestRefused):
    """The region has no two points, so that a claim about it would be vacuous."""

    code = "region-empty-interior"


class TooLarge(RequestRefused):
    """The problem needs more memory or time than allowed."""

    code = "too-large"


# --- The run -------------------------------------------------------------------------------------


class JobFailed(LipcertError):
    """Model and question were fine, and still no bound was proved."""

    code = "job-failed"


class CheckRejected(JobFailed):
    """The independent checker rejected every candidate: a defect of lipcert."""

    code = "check-rejected"


class OutOfBudget(JobFailed):
    """The budget ended before any bound was proved."""

    code = "timeout"


class ResourceExhausted(JobFailed):
    """The attempt ran out of memory or processor time."""

    code = "resource-exhausted"


class WorkerLost(JobFailed):
    """The process that worked on the job died, as often as it was tried."""

    code = "worker-lost"


def all_errors(root: type[LipcertError] = LipcertError) -> Iterator[type[LipcertError]]:
    """Every class of the tree, parents first."""
    yield root
    for child in root.__subclasses__():
        yield from all_errors(child)
