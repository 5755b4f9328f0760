"""The bytes of checkpoints, read as what a stranger sent."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from verifier.certificate import CUT, EMPTY, INEQUALITY, JACOBIAN
from verifier.checkpoint import (
    ELSEWHERE,
    Checkpoint,
    Growth,
    Node,
    Root,
    Row,
    Split,
    Trim,
    archive,
    read_checkpoint,
)
from verifier.errors import InvalidRequest
from verifier.property import Property

Members = dict[str, Any]  # Any: the header, and arrays by name


def trim(at: float) -> Trim:
    """Of a part below two cuts."""
    weights = np.array([0.25, at], dtype=np.float32)
    return Trim(split=Split(gate=1, entry=1, place=0.5), at=at, is_below=True, weights=weights)


def growth() -> Growth:
    """One tree: divided twice, with a leaf of every kind."""
    row = Row(np.array([1.0, 0.5]), np.array([2.0]))
    below = Node(kind=INEQUALITY, bound=3.0, row=row)
    inner = Node(
        kind=CUT,
        bound=3.0,
        split=Split(gate=0, entry=0, place=0.25),
        children=(
            Node(kind=EMPTY, weights=np.array([0.5, 0.25])),
            Node(kind=JACOBIAN, bound=1.0, row=row, trims=(trim(0.5), trim(0.0))),
        ),
    )
    split = Split(gate=1, entry=2, place=-1.5)
    first = Node(kind=CUT, bound=4.0, split=split, children=(below, inner))
    roots = (
        Root(item=0, output=1, node=first),
        Root(item=1, output=None, node=Node(kind=ELSEWHERE)),
    )
    return Growth(gates=("", "relu"), roots=roots, points=np.array([[0.5]]))


def data(change: Callable[[Members], object] = lambda _: None) -> bytes:
    """The growth's bytes, written again after a change of the members."""
    written = Checkpoint.of("sha256:0", Property(), growth()).to_bytes()
    assert written is not None
    with zipfile.ZipFile(io.BytesIO(written)) as old:
        members: Members = {
            name: np.load(io.BytesIO(old.read(f"{name}.npy"))) for name in archive.ARRAYS
        }
        members["header"] = json.loads(old.read(archive.HEADER))
    change(members)
    text = io.BytesIO()
    with zipfile.ZipFile(text, "w") as new:
        new.writestr(archive.HEADER, json.dumps(members.pop("header")))
        for name, array in members.items():
            member = io.BytesIO()
            np.save(member, array, allow_pickle=True)
            new.writestr(f"{name}.npy", member.getvalue())
    return text.getvalue()


def test_what_was_written_is_read() -> None:
    found = read_checkpoint(data()).require("sha256:0", Property())
    nodes = list(found.roots[0].node.preorder())
    assert [node.kind for node in nodes] == [CUT, INEQUALITY, CUT, EMPTY, JACOBIAN]
    assert nodes[2].split == Split(gate=0, entry=0, place=0.25)
    assert nodes[3].weights is not None
    assert nodes[3].weights.tolist() == [0.5, 0.25]
    assert nodes[1].row is nodes[4].row  # shared, as before
    assert [(root.item, root.output) for root in found.roots] == [(0, 1), (1, None)]
    assert [one.at for one in nodes[4].trims] == [0.5, 0.0]
    assert nodes[4].trims[0].split == Split(gate=1, entry=1, place=0.5)
    assert nodes[4].trims[0].is_below
    assert nodes[4].trims[0].weights.tolist() == [0.25, 0.5]
    assert not nodes[3].trims


def test_too_large_a_growth_has_no_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = data()
    monkeypatch.setattr(archive, "MOST_BYTES", 10)
    assert Checkpoint.of("sha256:0", Property(), growth()).to_bytes() is None
    with pytest.raises(InvalidRequest, match="too large"):
        read_checkpoint(whole)


def _set(name: str, value: object) -> Callable[[Members], object]:
    return lambda members: members.__setitem__(name, np.array(value))


def _head(name: str, value: object) -> Callable[[Members], object]:
    return lambda members: members["header"].__setitem__(name, value)


SPOILT: dict[str, Callable[[Members], object]] = {
    "format": _head("format", "lipcert-checkpoint/2"),
    "gates": _head("gates", [1]),
    "trees": _head("trees", [[0]]),
    "more trees": _head("trees", [[0, 1], [1, None], [2, None]]),
    "model": _head("model", None),
    "header": lambda members: members.__setitem__("header", []),
    "a member less": lambda members: members.pop("rows"),
    "a member more": _set("extra", [1]),
    "pickled": _set("kinds", [{}, {}]),
    "a trim too many": _set("trim_counts", [0, 0, 0, 0, 3, 0]),
    "a trim too few": _set("trim_counts", [0, 0, 0, 0, 1, 0]),
    "a trim of no gate": _set("trim_gates", [1, 7]),
    "a trim without weights": _set("trim_weights", np.zeros(3, np.float32)),
    "type": _set("kinds", [0.0, 2.0]),
    "axes": _set("points", [0.5]),
    "nan": _set("bounds", [4.0, np.nan, 3.0, 0.0, 1.0, 0.0]),
    "kind": _set("kinds", [0, 2, 0, 1, 9, 4]),
    "unfinished": _set("kinds", [0, 2, 0, 1, 0, 4]),
    "rest": _set("kinds", [0, 2, 0, 1, 3, 4, 2]),
    "split kind": _set("split_kinds", [0, 7]),
    "gate": _set("split_gates", [1, 2]),
    "negative gate": _set("split_gates", [-1, 0]),
    "row": _set("rows", [0, 1]),
    "weights": _set("weights", [0.5]),
    "more weights": _set("weights", [0.5, 0.25, 1.0]),
    "tables": _set("input_multipliers", [[2.0], [1.0]]),
}


@pytest.mark.parametrize("how", SPOILT)
def test_what_does_not_fit_together_is_refused(how: str) -> None:
    with pytest.raises(InvalidRequest, match="checkpoint"):
        read_checkpoint(data(SPOILT[how]))


@pytest.mark.parametrize("text", [b"", b"PK", b"\x80\x04N.", data()[:-30]], ids=len)
def test_what_is_no_archive_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_checkpoint(text)


def test_an_array_is_no_larger_than_its_bytes() -> None:
    """A header that announces 2^40 numbers does not make anyone allocate them."""
    whole = data()
    told, lie = b"(6,), }", b"(1099511627776,), }"
    text = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(text, "w") as new:
        for info in old.infolist():
            member = old.read(info)
            if info.filename == "bounds.npy":
                assert told in member
                padding = b" " * (len(lie) - len(told))
                member = member.replace(told + padding, lie)
            new.writestr(info.filename, member)
    with pytest.raises(InvalidRequest, match="bounds"):
        read_checkpoint(text.getvalue())
