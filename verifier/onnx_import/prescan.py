"""The file's own rules, before anything is computed from it.

In this order, so that the most dangerous thing met is the one that is named: size, wire format,
data outside the file (anywhere: weights, attributes, sub-graphs, functions, training), control
flow, training, sparse tensors, functions, versions, names, attributes, every stored number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from verifier.errors import (
    ControlFlow,
    CustomOp,
    DtypeUnsupported,
    EmptyModel,
    ExpansionTooLarge,
    FileTooLarge,
    GraphCycle,
    InvalidAttribute,
    InvalidName,
    NonDeterministicOp,
    NonFiniteWeights,
    NotOnnx,
    OpsetUnsupported,
    TooManyNodes,
    TrainingModeOp,
)
from verifier.onnx_import import tensors, wire
from verifier.onnx_import.wire import Message

MAX_BYTES: Final = 512 * 2**20
MAX_NAME_BYTES: Final = 256
IR_VERSIONS: Final = range(3, 14)
OPSETS: Final = range(7, 25)
STANDARD_DOMAINS: Final = frozenset({"", "ai.onnx"})
FOREIGN_OPS: Final[Mapping[str, frozenset[str]]] = {
    "ai.onnx.ml": frozenset(
        {
            "ArrayFeatureExtractor",
            "Scaler",
            "TreeEnsemble",
            "TreeEnsembleClassifier",
            "TreeEnsembleRegressor",
            "ZipMap",
        }
    ),
    "com.microsoft": frozenset(
        {
            "DequantizeLinear",
            "Gelu",
            "QGemm",
            "QLinearAdd",
            "QLinearAveragePool",
            "QLinearConcat",
            "QLinearGlobalAveragePool",
            "QLinearLeakyRelu",
            "QLinearMul",
            "QLinearSigmoid",
            "QuantizeLinear",
        }
    ),
}  #: recognised, so that the answer can be about them; most are not supported either
#: How many operands they have; with fewer, or unnamed ones, onnxruntime does not survive some.
OPERANDS: Final[Mapping[str, int]] = {
    "QLinearAdd": 8,
    "QLinearAveragePool": 5,
    "QLinearConcat": 5,  # at least
    "QLinearGlobalAveragePool": 5,
    "QLinearLeakyRelu": 5,
    "QLinearMul": 8,
    "QLinearSigmoid": 5,
}

BRANCHES: Final = ("then_branch", "else_branch")  #: of an If, in this order

_CONTROL_FLOW: Final = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_RANDOM: Final = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
_ATTRIBUTE_FIELDS: Final = {
    1: "f",
    2: "i",
    3: "s",
    4: "t",
    5: "g",
    6: "floats",
    7: "ints",
    8: "strings",
    9: "tensors",
    10: "graphs",
    11: "sparse_tensor",
    12: "sparse_tensors",
    13: "tp",
    14: "type_protos",
}


def scan(data: bytes) -> Message:
    """The tree of a model that keeps every rule of this module.

    Raises:
        ModelRefused: the first rule that is broken, in the order of the module's text.
    """
    if MAX_BYTES < len(data):
        raise FileTooLarge(
            f"the file has {len(data):,} bytes; at most {MAX_BYTES:,} are read",
            fix="send a smaller model",
        )
    if not data:
        raise NotOnnx("the file is empty", fix="send the bytes of an .onnx file")
    model = wire.read(data)
    everything = list(_all_messages(model))
    _check_where_data_are(everything)
    _check_control_flow(model, everything)
    _check_foreign_parts(model, everything)
    opset = _check_versions(model)
    graph = model.one("graph")
    if graph is None:
        raise EmptyModel("the file has no graph", fix="export the model again")
    functions = _check_functions(model, graph, opset)
    _check_names(everything)
    for message in everything:
        if message.kind in {"Graph", "Function"}:
            for node in message.each("node"):
                _check_node(node, functions, refers=message.kind == "Function")
    return model


def _all_messages(root: Message) -> Iterator[Message]:
    pending = [root]
    while pending:
        message = pending.pop()
        yield message
        for children in message.messages.values():
            pending += children


def _check_where_data_are(everything: list[Message]) -> None:
    """EXTERNAL first of all, in every corner of the file; then each tensor's own data."""
    found = [message for message in everything if message.kind == "Tensor"]
    for tensor in found:
        if tensor.number("data_location") != 0 or tensor.has("external_data"):
            tensors.check(tensor, _shown(tensor.text("name")))
    if any(message.kind == "SparseTensor" for message in everything):
        raise DtypeUnsupported(
            "the file has a sparse tensor; dense tensors are supported",
            fix="export the weights as dense tensors",
        )


def _check_control_flow(model: Message, everything: list[Message]) -> None:
    """Sub-graphs are read in one place: the two branches of an If of the main graph."""
    graph = model.one("graph")
    nodes = [] if graph is None else graph.each("node")
    branching = [node for node in nodes if node.text("op_type") == "If"]
    allowed = {id(node) for node in branching} | {
        id(attribute)
        for node in branching
        for attribute in node.each("attribute")
        if attribute.text("name") in BRANCHES and not attribute.has("graphs")
    }
    for message in everything:
        if id(message) in allowed:
            continue
        if message.kind == "Node" and message.text("op_type") in _CONTROL_FLOW:
            raise _control_flow(message)
        if message.kind == "Attribute" and (message.has("g") or message.has("graphs")):
            raise _control_flow(message)


def _control_flow(message: Message) -> ControlFlow:
    name = _shown(message.text("name"))
    return ControlFlow(
        f"{name!r} has a sub-graph ({_shown(message.text('op_type')) or 'attribute'}); a graph "
        "without Loop and Scan is supported, an If where its condition is constant",
        node=name,
        fix="export with fixed control flow: trace the model on an example input",
    )


def _check_foreign_parts(model: Message, everything: list[Message]) -> None:
    if model.has("training_info"):
        raise TrainingModeOp(
            "the file has training information",
            fix="export the model for inference (model.eval())",
        )
    for tensor in everything:
        if tensor.kind == "Tensor":
            tensors.check(tensor, _shown(tensor.text("name")))


def _check_versions(model: Message) -> int:
    """The one version of the standard operators."""
    version = model.number("ir_version")
    if version not in IR_VERSIONS:
        raise OpsetUnsupported(
            f"IR version {version}; 3 to 13 are supported", fix="export with a current exporter"
        )
    imports = [
        (entry.text("domain"), wire.signed(entry.number("version")))
        for entry in model.each("opset_import")
    ]
    standard = [number for domain, number in imports if domain in STANDARD_DOMAINS]
    if len(set(standard)) != 1 or len({domain for domain, _ in imports}) < len(set(imports)):
        raise OpsetUnsupported(
            f"the standard operators are imported at versions {standard}; one version is needed",
            fix="export the model again with one opset version",
        )
    if standard[0] not in OPSETS:
        raise OpsetUnsupported(
            f"opset {standard[0]}; 7 to 24 are supported", fix="export with opset_version=18"
        )
    return standard[0]


def function_key(message: Message, field: str = "op_type") -> str:
    """What a node calls; with field "name", what a function is called by."""
    return f"{message.text('domain')}::{message.text(field)}"


def _check_functions(model: Message, graph: Message, opset: int) -> frozenset[str]:
    """The names of local functions; the graph with all of them written out is small enough."""
    functions = model.each("functions")
    if not functions:
        return frozenset()
    called = {
        function_key(function, "name"): [function_key(node) for node in function.each("node")]
        for function in functions
    }
    if len(called) < len(functions) or any(function.has("overload") for function in functions):
        raise CustomOp(
            "two functions of the file have one name",
            fix="export the model without local functions",
        )
    if any(function.text("domain") in STANDARD_DOMAINS for function in functions):
        raise CustomOp(
            "a function of the file takes the name of a standard operator",
            fix="export the model without local functions",
        )
    for function in functions:
        _check_function_opset(function, opset)
    sizes = _expanded_sizes(called)
    whole = sum(max(1, sizes.get(function_key(node), 1)) for node in graph.each("node"))
    if wire.MAX_NODES < max(whole, *sizes.values()):
        raise ExpansionTooLarge(
            f"the graph has {max(whole, *sizes.values()):,} nodes when its functions are written "
            "out",
            fix=f"export a graph of at most {wire.MAX_NODES:,} nodes",
        )
    return frozenset(called)


def _check_function_opset(function: Message, opset: int) -> None:
    for entry in function.each("opset_import"):
        version = wire.signed(entry.number("version"))
        if entry.text("domain") in STANDARD_DOMAINS and version != opset:
            raise OpsetUnsupported(
                f"function {_shown(function.text('name'))!r} uses opset {version}, the graph "
                f"{opset}",
                fix="inline the functions when exporting (onnx.inliner.inline_local_functions)",
            )


def _expanded_sizes(called: Mapping[str, list[str]]) -> dict[str, int]:
    """The node count of every function written out, in dependency order; a cycle is refused."""
    sizes: dict[str, int] = {}
    remaining = dict(called)
    while remaining:
        ready = [name for name, body in remaining.items() if not remaining.keys() & set(body)]
        if not ready:
            raise GraphCycle(
                f"function {_shown(next(iter(remaining)))!r} calls itself",
                fix="export the model without recursive functions",
            )
        for name in ready:
            # A call of nothing is written out as nothing, but it is followed all the same.
            sizes[name] = sum(max(1, sizes.get(callee, 1)) for callee in remaining.pop(name))
    return sizes


def _check_names(everything: list[Message]) -> None:
    names = {"Node", "Graph", "Tensor", "ValueInfo", "Attribute"}
    for message in everything:
        if message.kind not in names:
            continue
        for field in ("name", "op_type", "domain"):
            if message.has(field):
                _check_name(message.text(field))
        if message.kind == "Node":
            for name in (*message.texts("input"), *message.texts("output")):
                _check_name(name)


def _check_name(name: str) -> None:
    if MAX_NAME_BYTES < len(name.encode()) or not name.isprintable():
        raise InvalidName(
            f"the name {_shown(name)!r} is longer than {MAX_NAME_BYTES} bytes or has characters "
            "that cannot be shown",
            fix="rename the tensors and nodes of the graph",
        )


def _check_node(node: Message, functions: frozenset[str], *, refers: bool) -> None:
    label = node.text("name") or next(iter(node.texts("output")), "")
    if wire.MAX_OPERANDS < len(node.texts("input")) + len(node.texts("output")):
        raise TooManyNodes(
            f"node {label!r} has {len(node.texts('input')):,} operands",
            node=label,
            fix="write the node as several ones",
        )
    op, domain = node.text("op_type"), node.text("domain")
    if op in _RANDOM and domain in STANDARD_DOMAINS:
        raise NonDeterministicOp(
            f"node {label!r} ({op}) draws random numbers: the model is no function of its input",
            node=label,
            fix="export in evaluation mode, without random operators",
        )
    is_local = function_key(node) in functions and not node.has("overload")
    if domain not in STANDARD_DOMAINS and op not in FOREIGN_OPS.get(domain, ()) and not is_local:
        raise CustomOp(
            f"node {label!r} is {domain}::{op}; operators of the standard domain are supported",
            node=label,
            fix="export the model with standard ONNX operators",
        )
    if domain not in STANDARD_DOMAINS and op in OPERANDS and not is_local:
        _check_operands(node, label, op, refers=refers)
    given = [attribute.text("name") for attribute in node.each("attribute")]
    if len(set(given)) < len(given):
        raise InvalidAttribute(
            f"node {label!r} has an attribute twice: {sorted(given)}",
            node=label,
            fix="export the model again",
        )
    for attribute in node.each("attribute"):
        _check_attribute(attribute, label, refers=refers)


def _check_operands(node: Message, label: str, op: str, *, refers: bool) -> None:
    """All of them, by name: a function might be called with fewer."""
    names = node.texts("input")
    if refers or "" in names or len(names) < OPERANDS[op]:
        raise InvalidAttribute(
            f"node {label!r} ({op}) leaves out operands, or stands in a function",
            node=label,
            fix="state every scale and zero point, in the graph itself",
        )


def _check_attribute(attribute: Message, label: str, *, refers: bool) -> None:
    """One value, of the type that it says, and finite; in functions perhaps one of the call's."""
    name = attribute.text("name")
    given = {field for field in _ATTRIBUTE_FIELDS.values() if attribute.has(field)}
    expected = _ATTRIBUTE_FIELDS.get(attribute.number("type"))
    is_reference = attribute.has("ref_attr_name")
    if (is_reference and (given or not refers)) or not given <= {expected}:
        raise InvalidAttribute(
            f"attribute {name!r} of node {label!r} is tagged {expected} and holds {sorted(given)}",
            node=label,
            fix="export the model again",
        )
    numbers = tensors.floats(attribute, "f") + tensors.floats(attribute, "floats")
    if any(number - number != 0 for number in numbers):
        raise NonFiniteWeights(
            f"attribute {name!r} of node {label!r} is nan or infinite",
            node=label,
            fix="train or export again: every attribute has to be finite",
        )


def _shown(name: str) -> str:
    """A name that is fit to be shown: short and printable."""
    return "".join(c if c.isprintable() else "?" for c in name[:64])
