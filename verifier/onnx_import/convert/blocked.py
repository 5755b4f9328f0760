"""Operators that no network has: each says what they take from the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

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
        "ConvInteger",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "Equal",
        "Floor",
        "Greater",
        "GreaterOrEqual",
        "Hardmax",
        "IsInf",
        "IsNaN",
        "Less",
        "LessOrEqual",
        "MatMulInteger",
        "Mod",
        "NonZero",
        "Not",
        "OneHot",
        "Or",
        "QLinearConv",
        "QLinearMatMul",
        "QuantizeLinear",
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
        "com.microsoft::QGemm",
    }
)
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
