"""What a request may say, member by member, and what it may not: for all who read requests."""

from typing import Any

from hypothesis import strategies as st

CENTER = {"type": "box", "center": [0.0, 1.0], "radius": 0.1}
MEMBERS: dict[str, list[Any]] = {
    "method": ["auto", "product", "lipsdp", "propagation", "magic", 3, None],
    "options": [{}, {"seed": 1}, {"a": "b", "c": True, "d": 1.5}, {"a": []}, [], None],
    "budget": [
        {},
        {"seconds": 1},
        {"gap": 0},
        {"seconds": 0},
        {"gap": -1},
        {"s": 1},
        {"second": 1},
        None,
        3,
    ],
    "target": [None, {"upper": 1}, {"upper": 0.0}, {"upper": -1}, {"upper": "1"}, {}, 3],
    "property": [
        {},
        {"kind": "lipschitz", "scope": "global", "norm": "l1"},
        {"kind": "jacobian"},
        {"kind": "jacobian", "norm": None, "outputs": {"indices": [1]}},
        {"kind": "jacobian", "outputs": {"margins": "all"}},
        {"region": {"type": "box", "centers": [[0, 1], [1, 0]], "radius": 0.5}},
        {
            "region": {
                "type": "box",
                "centers": [[0.5]],
                "radius": 0.5,
                "clip": {"lower": 0, "upper": 1},
            }
        },
        {"region": {"type": "ball", "norm": "l1", "centers": [[0]], "radius": 1}},
        {"region": {"type": "box", "centers": [], "radius": 1}},
        {"region": {"type": "box", "centers": [0], "radius": 1}},
        {"kind": "jacobian", "region": {"type": "box", "centers": [[0]], "radius": 1}},
        {"kind": "monotone"},
        {"kind": "monotone", "monotone": {"input": 0, "output": 1, "direction": "decreasing"}},
        {"kind": "monotone", "monotone": {"input": 0, "output": 1, "direction": "down"}},
        {
            "kind": "monotone",
            "monotone": {"input": 0, "output": 1, "direction": "decreasing"},
            "inputs": {"indices": [0]},
        },
        {"monotone": {"input": 0, "output": 1, "direction": "decreasing"}},
        {"norm": None},
        {"norm": {"input": "l2", "output": "linf"}},
        {"norm": {"input": "l2"}},
        {"norm": {"input": {"type": "linf", "weights": [1, 0.5]}, "output": "l2"}},
        {"norm": {"input": {"type": "linf", "weights": [1, -0.5]}, "output": "l2"}},
        {"norm": {"input": {"type": "l2", "matrix": [[2, 1], [1, 2]]}, "output": "l2"}},
        {"norm": {"input": {"type": "linf", "matrix": [[1]]}, "output": "l2"}},
        {"norm": {"input": {"type": "l2", "matrix": [1]}, "output": "l2"}},
        {"norm": {"input": {"type": "l2"}, "output": "l2"}},
        {"norm": "l3"},
        {"norm": "l0"},
        {"norm": "l1"},
        {"norm": {"input": "l1"}},
        {"norm": {"input": {"type": "l1", "weights": [1, 2]}, "output": "l2"}},
        {"norm": {"input": {"type": "l1", "weights": [0]}, "output": "l2"}},
        {"norm": {"input": {"type": "l1", "matrix": [[1]]}, "output": "l2"}},
        {"norm": {"input": {"type": "l2", "matrix": [[1]]}, "output": "l2"}},
        {"norm": {"input": "l2", "output": {"type": "l2", "weights": [1]}}},
        {"outputs": {"margins": [[1]]}},
        {"region": {"type": "box", "center": [0], "radius": 0}},
        {"scope": "everywhere"},
        {"region": None},
        {"scope": "local", "region": CENTER},
        {"region": {**CENTER, "radius": [0.0, 0.5]}},
        {"region": {**CENTER, "radius": 0}},
        {"region": {**CENTER, "radius": True}},
        {"region": {**CENTER, "clip": {"lower": 0, "upper": 1}}},
        {"region": {**CENTER, "clip": {"lower": 0}}},
        {"region": {**CENTER, "lower": [0]}},
        {"region": {"type": "box", "center": [], "radius": 1}},
        {"region": {"type": "box", "center": ["0"], "radius": 1}},
        {"region": {"type": "box", "lower": [0, 1], "upper": [1, 1]}},
        {"region": {"type": "box", "lower": [0]}},
        {"region": {"type": "ball", "norm": "linf", "center": [0], "radius": 1}},
        {"region": {"type": "ball", "center": [0], "radius": 1}},
        {"region": {"type": "ball", "norm": "l1", "center": [0], "radius": -1}},
        {"inputs": "all", "outputs": "all"},
        {"inputs": {"indices": [0, 2]}},
        {"inputs": {"indices": []}},
        {"inputs": {"indices": [-1]}},
        {"inputs": {"indices": [True]}},
        {"inputs": "some"},
        {"outputs": {"each": True}},
        {"outputs": {"each": False}},
        {"outputs": {"margins": "all"}},
        {"outputs": {"margins": [[0, 1]]}},
        {"outputs": {"margins": [[0]]}},
        {"outputs": {"names": ["y"]}},
        {"outputs": {"names": []}},
        {"outputs": {"names": [""]}},
        {"outputs": {"names": [1]}},
        {"bind": {"shapes": {}, "values": {}}},
        {"bind": {"shapes": {"N": 4, "C": 3}}},
        {"bind": {"shapes": {"N": 0}}},
        {"bind": {"values": {"z": 1.5, "w": [1, -2.5]}}},
        {"bind": {"values": {"z": []}}},
        {"bind": {"values": {"z": "1"}}},
        {"bind": {"types": {}}},
        [],
        None,
    ],
    "colour": [1],
}

#: Every member alone, with each of its values.
ALONE: list[dict[str, Any]] = [
    {name: value} for name, values in MEMBERS.items() for value in values
]

#: Several together.
MIXED = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(values) for name, values in MEMBERS.items()}
)
