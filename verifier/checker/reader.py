"""The checker's reader: an ONNX file's bytes as tensors, attributes and nodes, or a refusal.

`wire.scan` has checked the wire format of the whole file, `nodes` and `tensors` take the values;
here the rules of names and of the graph's structure are checked.

    * a tensor states its data once, in exactly the size of its shape, and every number is finite,
      or minus infinity, which `masks` alone takes;
    * float types are taken as the exact reals that their bits denote (in float64);
    * every value is made once; what a node reads is made somewhere; nodes are sorted here;
    * local functions are written out, and the branches of an If are kept;
    * training information, sparse tensors, other subgraphs and random operators are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verifier.checker.ends import Ends, read_ends
from verifier.checker.messages import Parts, collect, integer, name_of, view
from verifier.checker.nodes import Functions, Node, read_constants, read_functions, read_nodes
from verifier.checker.tensors import Gapped, Tensor
from verifier.checker.wire import scan
from verifier.errors import (
    DuplicateName,
    EmptyModel,
    GraphCycle,
    OpsetUnsupported,
    TrainingModeOp,
    UndefinedName,
)

if TYPE_CHECKING:
    from verifier.property import Reading

IR_VERSIONS = range(3, 14)
OPSETS = range(7, 25)
IR_WITH_FREE_INITIALISERS = 4  #: from here on, an initialiser that is an input may be replaced


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What the file holds, in an order in which every value is made before it is read."""

    opset: int
    nodes: tuple[Node, ...]
    constants: Mapping[str, Tensor | Gapped]  #: initialisers, and inputs that are held constant
    ends: Ends


def read_model(data: bytes, reading: Reading) -> Model:
    """The file's content.

    Args:
        data: the file.
        reading: what is bound, chosen and frozen.

    Raises:
        ModelRefused, NotCheckable: the file is not read.
        InvalidRequest: the reading does not fit the file.
    """
    root = scan(data)
    parts = collect(root)
    opset = _check_versions(parts)
    if 20 in parts:
        raise TrainingModeOp("the file has training information", fix="export for inference")
    graphs = parts.get(7, [])
    if not graphs:
        raise EmptyModel("the file has no graph", fix="export the network again")
    ir_version = integer(parts, 1, -1)
    functions = read_functions(parts.get(25, []), opset)
    return _read_graph(collect(view(graphs[0])), opset, ir_version, reading, functions)


# --- The model -----------------------------------------------------------------------------------


def _check_versions(parts: Parts) -> int:
    """The opset of the default domain."""
    ir_version = integer(parts, 1, -1)
    found: dict[str, int] = {}
    for item in parts.get(8, []):
        entry = collect(view(item))
        domain = name_of(entry, 1)
        domain = "" if domain == "ai.onnx" else domain
        if domain in found:
            raise OpsetUnsupported(f"domain {domain!r} is imported twice", fix="export again")
        found[domain] = integer(entry, 2, -1)
    opset = found.get("", -1)
    if ir_version not in IR_VERSIONS or opset not in OPSETS:
        raise OpsetUnsupported(
            f"IR version {ir_version} and opset {opset}; read are IR {IR_VERSIONS[0]} to "
            f"{IR_VERSIONS[-1]} and opset {OPSETS[0]} to {OPSETS[-1]}",
            fix="export with opset 20",
        )
    return opset


def _read_graph(
    parts: Parts, opset: int, ir_version: int, reading: Reading, functions: Functions
) -> Model:
    name_of(parts, 2)
    initialisers = read_constants(parts)
    nodes = read_nodes(parts.get(1, []), functions)
    ends = read_ends(parts, initialisers, reading, is_free=IR_WITH_FREE_INITIALISERS <= ir_version)
    constants = {**initialisers, **ends.held}
    _check_made(nodes, constants, ends.inputs, ends.outputs)
    return Model(opset=opset, nodes=in_order(nodes), constants=constants, ends=ends)


def _check_made(
    nodes: Sequence[Node],
    initialisers: Mapping[str, Tensor | Gapped],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> None:
    """Every value is made once, and what is read is made."""
    made = {*initialisers, *inputs}
    for name in (name for node in nodes for name in node.outputs if name):
        if name in made:
            raise DuplicateName(f"{name!r} is made twice", fix="export again", node=name)
        made.add(name)
    for branch in (branch for node in nodes for branch in node.branches):
        own = branch.made  # the two branches of one node may share names
        if len(set(own)) < len(own) or not made.isdisjoint(own):
            raise DuplicateName("a value of a branch is made twice", fix="export again")
    read = [name for node in nodes for name in node.reads if name]
    for name in (*read, *outputs):
        if name not in made:
            raise UndefinedName(f"{name!r} is read but not made", fix="export again", node=name)


def in_order(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The nodes, makers first; in the file's order where that does not matter."""
    maker = {name: place for place, node in enumerate(nodes) for name in node.outputs if name}
    needs = [{maker[name] for name in node.reads if name in maker} for node in nodes]
    readers: list[list[int]] = [[] for _ in nodes]
    for place, made in enumerate(needs):
        for other in made:
            readers[other].append(place)
    missing = [len(made) for made in needs]
    ready = [place for place in range(len(nodes) - 1, -1, -1) if missing[place] == 0]
    order: list[int] = []
    while ready:
        place = ready.pop()
        order.append(place)
        for reader in readers[place]:
            missing[reader] -= 1
            if missing[reader] == 0:
                ready.append(reader)
    if len(order) < len(nodes):
        stuck = next(node for place, node in enumerate(nodes) if missing[place])
        raise GraphCycle(f"{stuck.name!r} needs itself", fix="export again", node=stuck.name)
    return tuple(nodes[place] for place in order)
