"""Trains the example networks on scikit-learn's digits and writes them as ONNX files.

    relu_mlp          64 -> 32 -> 32 -> 10, ReLU
    maxmin_mlp        64 -> 64 -> 64 -> 10, MaxMin, every weight divided by its spectral norm
    small_cnn         1 x 8 x 8, two convolutions of stride 2 with 8 and 16 channels, ReLU
    residual_groupsort 64 -> 32, two residual blocks with GroupSort in groups of 4, -> 10

and `digit.npy`, the first test image, as a center for local bounds.

Inputs are the 64 pixels, divided by 16, so that they lie in [0, 1]. Seeds are fixed. The files are
committed: this script says where they come from. The default exporter (dynamo) writes three of
them, the legacy one writes `small_cnn`, so that both are met.

Run: `python examples/train_examples.py` (needs the extras `verify` and `dev`; about a minute).
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

HERE = Path(__file__).parent
SEED = 20
OPSET = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """The data set, split once: 1437 images to train on, 360 to test on."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


class MaxMin(nn.Module):
    """Sorts each pair (x_i, x_{i + n/2})."""

    def forward(self, x: Tensor) -> Tensor:
        """The maxima of all pairs, then the minima."""
        first, second = x.chunk(2, dim=-1)
        return torch.cat([torch.maximum(first, second), torch.minimum(first, second)], dim=-1)


class GroupSort(nn.Module):
    """Sorts each group of consecutive neurons, ascending."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """The groups, each sorted."""
        groups = x.reshape(-1, self.width // self.size, self.size)
        return torch.sort(groups, dim=-1).values.reshape(-1, self.width)


class Residual(nn.Module):
    """x + W sort(V x + b) + c."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Linear(width, width), GroupSort(4, width), nn.Linear(width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the branch and the shortcut."""
        return x + self.branch(x)


def relu_mlp() -> nn.Module:
    """Three dense layers."""
    return nn.Sequential(
        nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)
    )


def maxmin_mlp() -> nn.Module:
    """Three dense layers that training keeps at spectral norm 1: the network is 1-Lipschitz."""
    return nn.Sequential(
        nn.Linear(64, 64), MaxMin(), nn.Linear(64, 64), MaxMin(), nn.Linear(64, 10)
    )


def small_cnn() -> nn.Module:
    """Two convolutions of stride 2, then a dense layer."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def residual_groupsort() -> nn.Module:
    """A dense layer, two residual blocks, a dense layer."""
    return nn.Sequential(nn.Linear(64, 32), Residual(32), Residual(32), nn.Linear(32, 10))


def load() -> Digits:
    """The digits, with inputs in [0, 1]."""
    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        images / 16.0, labels, test_size=360, random_state=SEED, stratify=labels
    )
    return Digits(
        train_images=torch.tensor(train_x, dtype=torch.float32),
        train_labels=torch.tensor(train_y, dtype=torch.int64),
        test_images=torch.tensor(test_x, dtype=torch.float32),
        test_labels=torch.tensor(test_y, dtype=torch.int64),
    )


def normalise(network: nn.Module) -> None:
    """Divides every dense weight by its largest singular value, computed in full."""
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Linear):
                norm = torch.linalg.matrix_norm(layer.weight.double(), ord=2)
                layer.weight.copy_((layer.weight.double() / norm).float())


def train(
    network: nn.Module, images: Tensor, labels: Tensor, *, epochs: int, lipschitz: bool
) -> None:
    """Adam on cross entropy, with weight decay; a Lipschitz network gets sharper logits."""
    generator = torch.Generator().manual_seed(SEED)
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    # A 1-Lipschitz network cannot have large logits: the loss sees them enlarged.
    sharpness = 20.0 if lipschitz else 1.0
    for _ in range(epochs):
        for batch in torch.randperm(len(images), generator=generator).split(64):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(sharpness * network(images[batch]), labels[batch])
            loss.backward()
            optimiser.step()
            if lipschitz:
                normalise(network)
        schedule.step()


def export(network: nn.Module, example: Tensor, *, legacy: bool) -> bytes:
    """The ONNX bytes, with a symbolic batch, without names of files, modules or scopes."""
    inputs, outputs = ["image"], ["logits"]
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # the legacy exporter announces its own end
        path = Path(folder, "network.onnx")
        if legacy:
            torch.onnx.export(
                network,
                (example,),
                path,
                dynamo=False,
                dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
                input_names=inputs,
                output_names=outputs,
                opset_version=OPSET,
            )
        else:
            torch.onnx.export(
                network,
                (example,),
                path,
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
                verbose=False,
                input_names=inputs,
                output_names=outputs,
                opset_version=OPSET,
            )
        model = onnx.load(path)
    strip(model)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def strip(model: onnx.ModelProto) -> None:
    """Removes what describes the exporting machine and not the function."""
    model.doc_string = ""
    model.graph.doc_string = ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    described = (*model.graph.value_info, *model.graph.input, *model.graph.output)
    for value in (*described, *model.graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]


def accuracy(data: bytes, images: Tensor, labels: Tensor) -> float:
    """The share of right answers of the exported file, under onnxruntime, one image at a time."""
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    right = 0
    for image, label in zip(images, labels, strict=True):
        (logits,) = session.run(None, {"image": image.unsqueeze(0).numpy()})
        right += int(torch.as_tensor(logits).argmax()) == int(label)
    return right / len(labels)


def main() -> None:
    """Trains, exports, measures and writes all four."""
    torch.set_num_threads(1)  # another number of threads rounds differently
    digits = load()
    np.save(HERE / "digit.npy", digits.test_images[0].numpy())
    for build in (relu_mlp, maxmin_mlp, small_cnn, residual_groupsort):
        torch.manual_seed(SEED)
        name = build.__name__
        network = build()
        shape = (-1, 1, 8, 8) if build is small_cnn else (-1, 64)
        images, tests = digits.train_images.reshape(shape), digits.test_images.reshape(shape)
        train(network, images, digits.train_labels, epochs=40, lipschitz=build is maxmin_mlp)
        network.eval()
        data = export(network, tests[:3], legacy=build is small_cnn)
        (HERE / f"{name}.onnx").write_bytes(data)
        share = accuracy(data, tests, digits.test_labels)
        sys.stdout.write(f"{name:20} {len(data):7} bytes, test accuracy {100 * share:.1f} %\n")


if __name__ == "__main__":
    main()
