"""The bytes of an ONNX file as a tree of messages: every field known, nothing interpreted twice.

A walk with an explicit stack (no recursion), linear in the file, that refuses what protobuf
libraries pass on in silence: unknown fields, a singular field given twice, groups, over-long
varints. Nothing is copied: strings and numbers stay views of the file's bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from verifier.errors import ControlFlow, NotOnnx, TooManyNodes, UnknownField

MAX_MESSAGES: Final = 2_000_000
MAX_DEPTH: Final = 100
MAX_NODES: Final = 20_000
MAX_OPERANDS: Final = 2**14  #: of one node, and results
NESTED: Final = 7  #: the depth of a graph in a sub-graph: model, graph, node, attribute, graph, ..
MAX_INNER: Final = 200  #: of those

Kind: TypeAlias = Literal["varint", "fixed32", "fixed64", "bytes"]
_WIRE_TYPES: Final[Mapping[Kind, int]] = {"varint": 0, "fixed64": 1, "bytes": 2, "fixed32": 5}
_WIDTHS: Final[Mapping[int, int]] = {1: 8, 5: 4}


@dataclass(frozen=True, slots=True)
class Field:
    """What the schema says of one field."""

    name: str
    kind: Kind = "bytes"
    repeated: bool = False
    message: str = ""  #: the kind of message inside, where there is one


@dataclass(slots=True)
class Message:
    """One message: numbers, views of bytes and messages by field name."""

    kind: str
    numbers: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    views: dict[str, list[memoryview]] = field(default_factory=dict[str, list[memoryview]])
    messages: dict[str, list[Message]] = field(default_factory=dict[str, list["Message"]])

    def number(self, name: str, default: int = 0) -> int:
        """A singular number."""
        return self.numbers.get(name, [default])[0]

    def text(self, name: str) -> str:
        """A singular string; `NotOnnx` where it is not UTF-8."""
        return _decoded(self.views.get(name, [memoryview(b"")])[0])

    def texts(self, name: str) -> list[str]:
        """A repeated string."""
        return [_decoded(view) for view in self.views.get(name, ())]

    def each(self, name: str) -> list[Message]:
        """A repeated message."""
        return self.messages.get(name, [])

    def one(self, name: str) -> Message | None:
        """A singular message, or none."""
        return next(iter(self.messages.get(name, ())), None)

    def has(self, name: str) -> bool:
        """Whether the field is there."""
        return name in self.numbers or name in self.views or name in self.messages


def read(data: bytes) -> Message:
    """The tree of a ModelProto.

    Raises:
        NotOnnx: the bytes are no protobuf message of this schema.
        UnknownField: a field that ONNX does not define.
        TooManyNodes: more messages than a graph of 20,000 nodes has.
    """
    root = Message("Model")
    pending: list[tuple[memoryview, Message, int]] = [(memoryview(data), root, 0)]
    count = nodes = inner = 0
    while pending:
        view, message, depth = pending.pop()
        if MAX_DEPTH < depth:
            raise _malformed(f"messages are nested more than {MAX_DEPTH} deep")
        inside = _fill(view, message)
        nodes += message.kind == "Node"
        inner += message.kind == "Graph" and NESTED <= depth
        # The main graph has no more nodes; graphs in sub-graphs are refused in any case.
        if MAX_NODES < nodes or MAX_INNER < inner:
            raise ControlFlow(
                f"the file has more than {MAX_NODES:,} nodes, or {MAX_INNER} graphs, in sub-graphs",
                fix="export with fixed control flow: trace the model on an example input",
            )
        count += sum(len(values) for values in message.numbers.values())
        count += sum(len(values) for values in message.views.values()) + len(inside)
        if MAX_MESSAGES < count:
            raise TooManyNodes(
                f"the file has more than {MAX_MESSAGES:,} fields",
                fix="export a smaller graph; weights belong into raw_data",
            )
        pending += [(part, child, depth + 1) for part, child in inside]
    return root


def _fill(view: memoryview, message: Message) -> list[tuple[memoryview, Message]]:
    """Reads one message's own fields; what is inside it is returned, unread."""
    schema = SCHEMA[message.kind]
    inside: list[tuple[memoryview, Message]] = []
    at = 0
    while at < len(view):
        tag, at = varint_at(view, at)
        spec = schema.get(tag >> 3)
        if spec is None:
            raise _unknown(tag, message.kind)
        if not spec.repeated and message.has(spec.name):
            raise _malformed(f"field {spec.name!r} of a {message.kind} is given twice")
        if tag & 7 == 0 and spec.kind == "varint":
            value, at = varint_at(view, at)
            message.numbers.setdefault(spec.name, []).append(value)
            continue
        part, at = _part(view, at, tag & 7, spec)
        if spec.message:
            child = Message(spec.message)
            message.messages.setdefault(spec.name, []).append(child)
            inside.append((part, child))
            if spec.name == "node" and MAX_NODES < len(inside):
                _check_node_count(message)
        else:
            views = message.views.setdefault(spec.name, [])
            views.append(part)
            if MAX_OPERANDS < len(views) and message.kind == "Node":
                raise TooManyNodes(
                    f"a node has more than {MAX_OPERANDS:,} operands",
                    fix="write the node as several ones",
                )
    return inside


def _part(view: memoryview, at: int, wire: int, spec: Field) -> tuple[memoryview, int]:
    """The bytes of a field that is no single varint, and where they end."""
    packed = wire == 2 and spec.repeated and spec.kind != "bytes"
    if wire != _WIRE_TYPES[spec.kind] and not packed:
        raise _malformed(f"field {spec.name!r} has wire type {wire}")
    if wire == 2:
        length, at = varint_at(view, at)
    else:
        length = _WIDTHS[wire]
    if len(view) - at < length:
        raise _malformed(f"field {spec.name!r} ends after the bytes that hold it")
    return view[at : at + length], at + length


def _check_node_count(message: Message) -> None:
    count = len(message.messages["node"])
    if MAX_NODES < count:
        raise TooManyNodes(
            f"the graph has more than {MAX_NODES:,} nodes",
            fix=f"export a graph of at most {MAX_NODES:,} nodes",
        )


def packed_varints(view: memoryview) -> list[int]:
    """The numbers of a packed field."""
    numbers: list[int] = []
    at = 0
    while at < len(view):
        number, at = varint_at(view, at)
        numbers.append(number)
    return numbers


def signed(number: int) -> int:
    """A varint as the int64 that it stands for."""
    return number - (1 << 64) if 1 << 63 <= number else number


def varint_at(view: memoryview, at: int) -> tuple[int, int]:
    """A number of at most ten bytes, and where it ends."""
    number = 0
    for place in range(10):
        if len(view) <= at + place:
            raise _malformed("the bytes end within a number")
        byte = view[at + place]
        number |= (byte & 127) << (7 * place)
        if byte < 128:
            if number >> 64:
                raise _malformed("a number has more than 64 bits")
            return number, at + place + 1
    raise _malformed("a number is longer than ten bytes")


def _decoded(view: memoryview) -> str:
    try:
        return str(view, "utf-8")
    except UnicodeDecodeError:
        raise _malformed("a string is not UTF-8") from None


def _unknown(tag: int, kind: str) -> NotOnnx | UnknownField:
    """Groups and field 0 are broken bytes; a well-formed foreign field is an unknown one."""
    if tag >> 3 == 0 or tag & 7 not in {0, 1, 2, 5}:
        return _malformed(f"a {kind} has a tag that protobuf does not allow")
    if kind == "Model" and not 1 <= tag >> 3 < 1 << 29:
        return _malformed("a field number is out of range")
    return UnknownField(
        f"a {kind} has field {tag >> 3}, which ONNX does not define",
        fix="export the model again with a current exporter; nothing may be appended to the file",
    )


def _malformed(what: str) -> NotOnnx:
    return NotOnnx(
        f"the file is not a well-formed ONNX model: {what}",
        fix="send the bytes of an .onnx file as an exporter wrote them, not compressed",
    )


def _text(name: str) -> Field:
    return Field(name)


def _texts(name: str) -> Field:
    return Field(name, repeated=True)


def _number(name: str) -> Field:
    return Field(name, "varint")


def _numbers(name: str, kind: Kind = "varint") -> Field:
    return Field(name, kind, repeated=True)


def _one(name: str, message: str) -> Field:
    return Field(name, message=message)


def _each(name: str, message: str) -> Field:
    return Field(name, message=message, repeated=True)


SCHEMA: Final[Mapping[str, Mapping[int, Field]]] = {
    "Attribute": {
        1: _text("name"),
        2: Field("f", "fixed32"),
        3: _number("i"),
        4: _text("s"),
        5: _one("t", "Tensor"),
        6: _one("g", "Graph"),
        7: _numbers("floats", "fixed32"),
        8: _numbers("ints"),
        9: _texts("strings"),
        10: _each("tensors", "Tensor"),
        11: _each("graphs", "Graph"),
        13: _text("doc_string"),
        14: _one("tp", "Type"),
        15: _each("type_protos", "Type"),
        20: _number("type"),
        21: _text("ref_attr_name"),
        22: _one("sparse_tensor", "SparseTensor"),
        23: _each("sparse_tensors", "SparseTensor"),
    },
    "Dimension": {1: _number("dim_value"), 2: _text("dim_param"), 3: _text("denotation")},
    "Function": {
        1: _text("name"),
        4: _texts("input"),
        5: _texts("output"),
        6: _texts("attribute"),
        7: _each("node", "Node"),
        8: _text("doc_string"),
        9: _each("opset_import", "OperatorSet"),
        10: _text("domain"),
        11: _each("attribute_proto", "Attribute"),
        12: _each("value_info", "ValueInfo"),
        13: _text("overload"),
        14: _each("metadata_props", "Entry"),
    },
    "Graph": {
        1: _each("node", "Node"),
        2: _text("name"),
        5: _each("initializer", "Tensor"),
        10: _text("doc_string"),
        11: _each("input", "ValueInfo"),
        12: _each("output", "ValueInfo"),
        13: _each("value_info", "ValueInfo"),
        14: _each("quantization_annotation", "Annotation"),
        15: _each("sparse_initializer", "SparseTensor"),
        16: _each("metadata_props", "Entry"),
    },
    "Annotation": {1: _text("tensor_name"), 2: _each("quant_parameter_tensor_names", "Entry")},
    "Map": {1: _number("key_type"), 2: _one("value_type", "Type")},
    "Model": {
        1: _number("ir_version"),
        2: _text("producer_name"),
        3: _text("producer_version"),
        4: _text("domain"),
        5: _number("model_version"),
        6: _text("doc_string"),
        7: _one("graph", "Graph"),
        8: _each("opset_import", "OperatorSet"),
        14: _each("metadata_props", "Entry"),
        20: _each("training_info", "Training"),
        25: _each("functions", "Function"),
    },
    "Node": {
        1: _texts("input"),
        2: _texts("output"),
        3: _text("name"),
        4: _text("op_type"),
        5: _each("attribute", "Attribute"),
        6: _text("doc_string"),
        7: _text("domain"),
        8: _text("overload"),
        9: _each("metadata_props", "Entry"),
    },
    "Opaque": {1: _text("domain"), 2: _text("name")},
    "OperatorSet": {1: _text("domain"), 2: _number("version")},
    "Optional": {1: _one("elem_type", "Type")},
    "Entry": {1: _text("key"), 2: _text("value")},
    "Segment": {1: _number("begin"), 2: _number("end")},
    "Sequence": {1: _one("elem_type", "Type")},
    "Shape": {1: _each("dim", "Dimension")},
    "SparseTensor": {
        1: _one("values", "Tensor"),
        2: _one("indices", "Tensor"),
        3: _numbers("dims"),
    },
    "Tensor": {
        1: _numbers("dims"),
        2: _number("data_type"),
        3: _one("segment", "Segment"),
        4: _numbers("float_data", "fixed32"),
        5: _numbers("int32_data"),
        6: _texts("string_data"),
        7: _numbers("int64_data"),
        8: _text("name"),
        9: _text("raw_data"),
        10: _numbers("double_data", "fixed64"),
        11: _numbers("uint64_data"),
        12: _text("doc_string"),
        13: _each("external_data", "Entry"),
        14: _number("data_location"),
        16: _each("metadata_props", "Entry"),
    },
    "TensorType": {1: _number("elem_type"), 2: _one("shape", "Shape")},
    "Training": {
        1: _one("initialization", "Graph"),
        2: _one("algorithm", "Graph"),
        3: _each("initialization_binding", "Entry"),
        4: _each("update_binding", "Entry"),
    },
    "Type": {
        1: _one("tensor_type", "TensorType"),
        4: _one("sequence_type", "Sequence"),
        5: _one("map_type", "Map"),
        6: _text("denotation"),
        7: _one("opaque_type", "Opaque"),
        8: _one("sparse_tensor_type", "TensorType"),
        9: _one("optional_type", "Optional"),
    },
    "ValueInfo": {
        1: _text("name"),
        2: _one("type", "Type"),
        3: _text("doc_string"),
        4: _each("metadata_props", "Entry"),
    },
}  #: device configurations (IR 11) are for several devices: refused with the unknown fields
