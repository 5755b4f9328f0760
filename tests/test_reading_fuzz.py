"""Two readers and a run time of random files agree, and no bound is below a secant.

LIPCERT_TESTS=quick | full | nightly chooses how many files.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from tests.attempts import PRODUCT, PROPAGATION, bounds
from tests.checker.evaluation import Runtime, evaluate
from tests.random_readings import random_reading
from verifier.certificate import log10_upper
from verifier.certificate_json import certificate_text
from verifier.checker import check
from verifier.checker.graph import read_network
from verifier.norms import Norm, NormPair
from verifier.onnx_import import load
from verifier.property import Property
from verifier.regions import CenterBox, Everywhere

FILES = {"quick": 9, "full": 200, "nightly": 3000}[os.environ.get("LIPCERT_TESTS", "quick")]
NORMS = (Norm.L1, Norm.L2, Norm.LINF)
ORDER = {Norm.L1: 1, Norm.L2: 2, Norm.LINF: np.inf}
RADIUS = 0.5
ROUNDED = 1e-12  #: of a secant that float64 measures, relative to the outputs


@pytest.mark.parametrize("seed", range(FILES))
def test_readers_agree_and_bounds_hold(seed: int) -> None:
    draft = random_reading(seed)
    data, rng = draft.file(), np.random.default_rng(seed)
    read, searched = read_network(data), load(data).require_network()
    assert Runtime(data).distance(read, rng, 2) < 1e-4
    points = rng.normal(size=(4, read.input_size))
    ours = np.stack([evaluate(read, x) for x in points])
    theirs = searched.forward(torch.from_numpy(points)).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)

    pair = NormPair(NORMS[seed % 3], NORMS[seed // 3 % 3])
    where: Literal["global", "local"] = "local" if seed % 2 else "global"
    region = CenterBox(center=tuple(points[0].tolist()), radius=RADIUS)
    asked = Property(scope=where, norm=pair, region=region if where == "local" else Everywhere())
    method = PROPAGATION if where == "local" else PRODUCT
    certificate = method.answer(data, asked)
    assert check(certificate, data).valid
    (bound,) = bounds(certificate)
    assert bound is not None
    reach = RADIUS if where == "local" else 4.0
    steps = rng.uniform(-1, 1, (24, read.input_size)) * reach * rng.choice([1.0, 1e-3], (24, 1))
    steepest = 0.0
    for step in steps:
        end = evaluate(read, points[0] + step)
        lost = ROUNDED * float(np.abs(end).max(initial=1.0))
        change = float(np.linalg.norm(end - ours[0], ORDER[pair.output])) - lost * end.size
        steepest = max(steepest, change / float(np.linalg.norm(step, ORDER[pair.input])))
    assert steepest <= bound
    if steepest > 0:
        less = steepest * (1 - 2.0**-40)
        claim = replace(certificate.claim, bound=less, log10_bound=log10_upper(less))
        forged = certificate_text(replace(certificate, claim=claim, lower_bound=None))
        assert not check(forged.encode(), data).valid
