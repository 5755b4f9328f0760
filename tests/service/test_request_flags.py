"""Flags and spec files: flags win, arrays come from files, and misuse is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from service.request_flags import Flags, read_array, request_from
from verifier.errors import InvalidRequest, RegionEmptyInterior
from verifier.norms import Metric, Norm, NormPair, WeightedPair, Weighting, Weights
from verifier.property import Request
from verifier.regions import CenterBox, Centers, Everywhere


def spec(folder: Path, value: object) -> Path:
    path = folder / "spec.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_no_flags_are_the_defaults() -> None:
    assert request_from(Flags()) == Request()


def test_flags_win_over_the_spec(tmp_path: Path) -> None:
    path = spec(
        tmp_path,
        {
            "property": {"norm": "l1", "outputs": {"each": True}},
            "method": "product",
            "budget": {"seconds": 5, "gap": 0.5},
            "options": {"seed": 1, "other": "kept"},
            "target": {"upper": 1},
        },
    )
    flags = Flags(
        spec=path,
        norm="linf,l2",
        method="lipsdp",
        seconds=7.0,
        target=2.0,
        options=["seed=3"],
    )
    request = request_from(flags)
    assert request.property.norm == NormPair(Norm.LINF, Norm.L2)
    assert (request.method, request.target) == ("lipsdp", 2.0)
    assert (request.budget.seconds, request.budget.gap) == (7.0, 0.5)
    assert request.options == {"seed": 3, "other": "kept"}


def test_many_centers_come_along_the_first_axis(tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    np.save(path, np.arange(12.0).reshape(3, 2, 2))
    region = request_from(Flags(centers=path, radius="0.5")).property.region
    assert isinstance(region, Centers)
    assert [part.center for part in region.parts] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]
    named = {"property": {"region": {"type": "box", "centers": "images.npy", "radius": 0.5}}}
    assert request_from(Flags(spec=spec(tmp_path, named))).property.region == region
    with pytest.raises(InvalidRequest, match="were given"):
        request_from(Flags(centers=path, center=path, radius="0.5"))
    np.save(path, np.arange(4.0))
    with pytest.raises(InvalidRequest, match="one row"):
        request_from(Flags(centers=path, radius="0.5"))


def test_weights_and_matrices_come_from_files(tmp_path: Path) -> None:
    weights, matrix = tmp_path / "w.npy", tmp_path / "P.json"
    np.save(weights, np.array([[1.0, 2.0]]))
    matrix.write_text("[[2, 1], [1, 2]]", encoding="utf-8")
    flags = Flags(norm="linf,l2", norm_weights=weights)
    plain = NormPair(Norm.LINF, Norm.L2)
    assert request_from(flags).property.norm == WeightedPair(plain, Weights((1.0, 2.0)))
    metric = WeightedPair(NormPair(Norm.L2, Norm.L2), Metric(((2.0, 1.0), (1.0, 2.0))))
    assert request_from(Flags(norm_matrix=matrix)).property.norm == metric


def test_weights_join_the_norm_of_the_spec(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.array([1.0, 2.0]))
    path = spec(tmp_path, {"property": {"norm": "l1"}})
    flags = Flags(spec=path, norm_weights=tmp_path / "w.npy")
    plain = NormPair(Norm.L1, Norm.L1)
    assert request_from(flags).property.norm == WeightedPair(plain, Weights((1.0, 2.0)))


@pytest.mark.parametrize(
    ("member", "array", "weighting"),
    [
        ("weights", np.array([1.0, 2.0]), Weights((1.0, 2.0))),
        ("matrix", np.array([[2.0, 1.0], [1.0, 2.0]]), Metric(((2.0, 1.0), (1.0, 2.0)))),
    ],
)
def test_spec_names_the_files_of_its_norm(
    tmp_path: Path, member: str, array: np.ndarray, weighting: Weighting
) -> None:
    np.save(tmp_path / "a.npy", array)
    norm = {"input": {"type": "l2", member: "a.npy"}, "output": "linf"}
    asked = request_from(Flags(spec=spec(tmp_path, {"property": {"norm": norm}}))).property
    assert asked.norm == WeightedPair(NormPair(Norm.L2, Norm.LINF), weighting)


def test_matrix_of_one_axis_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "P.npy", np.ones(3))
    with pytest.raises(InvalidRequest, match="axes"):
        request_from(Flags(norm_matrix=tmp_path / "P.npy"))


def test_global_scope_wins_over_a_region_of_the_spec(tmp_path: Path) -> None:
    region = {"type": "box", "center": [0.0], "radius": 1.0}
    path = spec(tmp_path, {"property": {"scope": "local", "region": region}})
    assert request_from(Flags(spec=path, scope="global")).property.region == Everywhere()


def test_center_and_radius_make_a_local_box(tmp_path: Path) -> None:
    center = tmp_path / "center.npy"
    np.save(center, np.array([[0.5, 0.1]], dtype=np.float32))
    region = request_from(Flags(center=center, radius="0.25")).property.region
    assert region == CenterBox(center=(0.5, float(np.float32(0.1))), radius=0.25)


def test_arrays_of_a_spec_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    np.save(tmp_path / "c.npy", np.zeros(2))
    (tmp_path / "r.json").write_text("[0.5, 0.25]", encoding="utf-8")
    path = spec(
        tmp_path, {"property": {"region": {"type": "box", "center": "c.npy", "radius": "r.json"}}}
    )
    region = request_from(Flags(spec=path)).property.region
    assert region == CenterBox(center=(0.0, 0.0), radius=(0.5, 0.25))


def test_arrays_of_a_spec_may_lie_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "specs"
    folder.mkdir()
    np.savez(tmp_path / "c.npz", center=np.arange(3))
    monkeypatch.chdir(tmp_path)
    path = spec(folder, {"property": {"region": {"type": "box", "center": "c.npz", "radius": 1}}})
    region = request_from(Flags(spec=path)).property.region
    assert region == CenterBox(center=(0.0, 1.0, 2.0), radius=1.0)


@pytest.mark.parametrize(
    ("text", "value"),
    [("a=1", 1), ("a=0.5", 0.5), ("a=true", True), ("a=block", "block"), ("a=x=y", "x=y")],
)
def test_option_is_json_or_text(text: str, value: object) -> None:
    assert request_from(Flags(options=[text])).options == {"a": value}


@pytest.mark.parametrize(
    "flags",
    [
        Flags(radius="0.1"),
        Flags(center=Path("examples/digit.npy")),
        Flags(center=Path("absent.npy"), radius="0.1"),
        Flags(center=Path("examples/digit.npy"), radius="wide"),
        Flags(center=Path("examples/digit.npy"), radius="nan"),
        Flags(center=Path("examples/digit.npy"), radius="0.1", scope="global"),
        Flags(center=Path("examples/relu_mlp.onnx"), radius="0.1"),
        Flags(center=Path("examples"), radius="0.1"),
        Flags(scope="local"),
        Flags(scope="planetary"),
        Flags(norm="l2,l2,l2"),
        Flags(norm=""),
        Flags(method="magic"),
        Flags(seconds=-1.0),
        Flags(gap=float("nan")),
        Flags(target=float("inf")),
        Flags(options=["novalue"]),
        Flags(options=["a=[1]"]),
        Flags(spec=Path("absent.json")),
        Flags(spec=Path("examples/relu_mlp.onnx")),
        Flags(spec=Path("examples/policy.yaml")),
    ],
    ids=repr,
)
def test_misuse_is_refused(flags: Flags, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(InvalidRequest) as caught:
        request_from(flags)
    assert caught.value.fix


def test_radius_zero_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", np.zeros(2))
    with pytest.raises(RegionEmptyInterior):
        request_from(Flags(center=tmp_path / "c.npy", radius="0"))


@pytest.mark.parametrize(
    "value", [[1], {"model": "sha256:0"}, {"property": 3}, {"budget": []}, {"options": "a"}]
)
def test_malformed_spec_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(InvalidRequest):
        request_from(Flags(spec=spec(tmp_path, value)))


def test_repeated_key_of_a_spec_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text('{"method": "product", "method": "auto"}', encoding="utf-8")
    with pytest.raises(InvalidRequest, match="one key twice"):
        request_from(Flags(spec=path))


@pytest.mark.parametrize(
    "array",
    [np.array([1 + 2j]), np.array(["x"]), np.array([{}], dtype=object), np.zeros(2, np.longdouble)],
    ids=["complex", "text", "pickle", "longdouble"],
)
def test_array_of_another_type_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "a.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(InvalidRequest):
        read_array(path)


def test_npz_of_two_arrays_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", one=np.zeros(1), two=np.zeros(1))
    with pytest.raises(InvalidRequest, match="2 arrays"):
        read_array(tmp_path / "a.npz")
