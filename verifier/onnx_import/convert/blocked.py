"""Operators that no network has: each says what they take from the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from verifier.onnx_import.convert.layouts import LAYOUTS
from verifier.onnx_import.counted import QUANTISERS
from verifier.onnx_import.tensors import ELEMENT_TYPES

if TYPE_CHECKING:
    from verifier.onnx_import.call import Call, Unrepresented

DISCONTINUOUS: Final = frozenset(
    {
        "And",
        "ArgMax",
        "ArgMin",
        "BitShift",
        "Ceil",
        "DequantizeLinear",
        "Equal",
        "Floor",
        "Greater",
        "GreaterOrEqual",
        "Hardmax",
        "IsInf",
        "IsNaN",
        "Less",
        "LessOrEqual",
        "Mod",
        "NonZero",
        "Not",
        "OneHot",
        "Or",
        "Round",
        "ScatterElements",
        "ScatterND",
        "Sign",
        "Where",
        "Xor",
        "ai.onnx.ml::ArrayFeatureExtractor",
        "ai.onnx.ml::TreeEnsemble",
        "ai.onnx.ml::TreeEnsembleClassifier",
        "ai.onnx.ml::TreeEnsembleRegressor",
    }
)
_STATIC: Final = "quantise statically (onnxruntime.quantization.quantize_static, QuantFormat.QDQ)"
_ROUNDS: Final = (
    "it rounds to integers, so that its result jumps by a step: no Lipschitz constant exists",
    'ask for semantics "real-idealised", which certifies the dequantised float function',
)
_FOLLOWS: Final = (
    "it rounds to integers by a step that follows the input: its result jumps, and no continuous "
    "function is within a distance of it that is known beforehand",
    f'{_STATIC}, and ask for semantics "real-idealised"',
)
_COUNTS: Final = (
    "it computes with integers, and its result jumps",
    f'{_STATIC}, and ask for semantics "real-idealised"',
)
#: What is said of operators on integers, and the remedy.
_INTEGERS: Final[Mapping[str, tuple[str, str]]] = {
    "ConvInteger": _COUNTS,
    "DynamicQuantizeLinear": _FOLLOWS,
    "MatMulInteger": _COUNTS,
    **dict.fromkeys((*QUANTISERS, *LAYOUTS), _ROUNDS),
}
KNOWN: Final = frozenset(
    {
        "Acos",
        "Acosh",
        "AffineGrid",
        "Asin",
        "Atanh",
        "BitwiseAnd",
        "BitwiseNot",
        "BitwiseOr",
        "BitwiseXor",
        "BlackmanWindow",
        "CenterCropPad",
        "Compress",
        "ConcatFromSequence",
        "DeformConv",
        "Det",
        "EyeLike",
        "GridSample",
        "HammingWindow",
        "HannWindow",
        "ImageDecoder",
        "MaxRoiPool",
        "MaxUnpool",
        "MelWeightMatrix",
        "NegativeLogLikelihoodLoss",
        "NonMaxSuppression",
        "ReduceProd",
        "ReverseSequence",
        "RoiAlign",
        "RotaryEmbedding",
        "STFT",
        "SequenceAt",
        "SequenceConstruct",
        "SoftmaxCrossEntropyLoss",
        "SplitToSequence",
        "StringNormalizer",
        "Tan",
        "TensorScatter",
        "TfIdfVectorizer",
        "Unique",
        "Upsample",
    }
)


def reason(call: Call) -> Unrepresented:
    """Why an operator without a rule has none."""
    call.attributes.ignore(*call.attributes.values)
    if call.op in _INTEGERS:
        return call.blocked("discontinuous-op", *_INTEGERS[call.op])
    if call.op in DISCONTINUOUS or (call.op == "Cast" and not _to_float(call)):
        return call.blocked(
            "discontinuous-op",
            "its result jumps, and it is part of no form that is known to be continuous",
            "leave the operator out of the exported model, or write it in a form that the README "
            "lists",
        )
    known = "" if call.op in KNOWN else " no such operator is known at this opset;"
    return call.blocked(
        "unsupported-op",
        f"there is no rule for it;{known} the README lists what is supported",
        "export the layer with supported operators (README, 'What is supported')",
    )


def _to_float(call: Call) -> bool:
    kind = ELEMENT_TYPES.get(int(call.attributes.integer("to")))
    return kind is not None and kind.is_float
