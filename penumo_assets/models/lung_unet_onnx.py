"""The lung U-Net as an ONNX model, made of its tensors without torch: what ONNX Runtime runs on a CPU.

The graph is that of `lung_unet.LungUNet` with its batch normalisations folded into the convolutions before them.

Reference: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3, https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Mapping

import numpy as np

INPUT, LOGITS, DEEPEST = "standard", "logits", "deepest"
_EPSILON = 1e-5  # of torch's BatchNorm2d
_IR_VERSION, _OPSET = 8, 13
_FLOAT = 1
Fields = list[tuple[int, "int | str | bytes | Fields"]]


def onnx_model(tensors: Mapping[str, np.ndarray]) -> bytes:
    """The model for pictures whose sides are multiples of 32.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        As `segment_weights.read_tensors` returns them.

    Returns
    -------
    bytes
        Input ``standard`` (N, 1, H, W) float32, which `LungUNet.encode` takes; outputs ``logits`` (N, 1, H / 2, W / 2)
        and ``deepest`` (N, C, H / 32, W / 32), as `LungUNet.decode` and `encode` give them.
    """
    graph = _Graph(tensors)
    levels = [graph.convolution(INPUT, "stem", stride=2)]
    depth = len({name.split(".")[1] for name in tensors if name.startswith("down.")})
    for level in range(depth):
        features = graph.convolution(levels[-1], f"down.{level}.0", stride=2)
        block = 1
        while f"down.{level}.{block}.first.0.weight" in tensors:
            features = graph.block(features, f"down.{level}.{block}")
            block += 1
        levels.append(features)
    features = deepest = levels.pop()
    for level in reversed(range(depth)):
        raised = graph.raised(graph.plain(features, f"lateral.{level}"))
        joined = graph.node("Add", levels.pop(), raised)
        features = graph.block(joined, f"up.{level}") if level else graph.convolution(joined, "up.0")
    graph.node("Identity", graph.plain(features, "head"), output=LOGITS)
    graph.node("Identity", deepest, output=DEEPEST)
    values: Fields = [(11, _any_size(INPUT)), (12, _any_size(LOGITS)), (12, _any_size(DEEPEST))]
    return _message([(1, _IR_VERSION), (7, [(2, "lungs"), *graph.fields, *values]), (8, [(2, _OPSET)])])


class _Graph:
    """Nodes and weights, in the order in which they are added; every method returns the name of what it makes."""

    def __init__(self, tensors: Mapping[str, np.ndarray]) -> None:
        self.tensors = tensors
        self.fields: Fields = []
        self.made = 0

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: int | str | list[int]) -> str:
        self.made += 1
        output = output or f"{kind.lower()}{self.made}"
        names: Fields = [(1, name) for name in inputs]
        described: Fields = [(5, _attribute(name, value)) for name, value in attributes.items()]
        self.fields.append((1, [*names, (2, output), (3, output), (4, kind), *described]))
        return output

    def weights(self, values: np.ndarray) -> str:
        self.made += 1
        name, dims = f"weights{self.made}", [(1, side) for side in values.shape]
        self.fields.append((5, [*dims, (2, _FLOAT), (8, name), (9, values.astype("<f4").tobytes())]))
        return name

    def convolve(self, features: str, weight: np.ndarray, bias: np.ndarray, stride: int = 1) -> str:
        side = weight.shape[-1]
        return self.node(
            "Conv", features, self.weights(weight), self.weights(bias),
            kernel_shape=[side] * 2, strides=[stride] * 2, pads=[side // 2] * 4,
        )  # fmt: skip

    def plain(self, features: str, name: str) -> str:
        return self.convolve(features, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    def folded(self, features: str, name: str, stride: int = 1) -> str:
        """A convolution with the batch normalisation behind it."""
        scale, shift, mean, variance = (
            self.tensors[f"{name}.1.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        factor = scale / np.sqrt(variance + _EPSILON)
        weight = self.tensors[f"{name}.0.weight"] * factor[:, None, None, None]
        return self.convolve(features, weight, shift - mean * factor, stride)

    def convolution(self, features: str, name: str, stride: int = 1) -> str:
        return self.node("Relu", self.folded(features, name, stride))

    def block(self, features: str, name: str) -> str:
        inner = self.folded(self.convolution(features, f"{name}.first"), f"{name}.second")
        return self.node("Relu", self.node("Add", features, inner))

    def raised(self, features: str) -> str:
        """Twice the size, bilinear."""
        scales = self.weights(np.array([1, 1, 2, 2]))
        return self.node("Resize", features, "", scales, mode="linear", coordinate_transformation_mode="half_pixel")


def _attribute(name: str, value: int | str | list[int]) -> Fields:
    if isinstance(value, str):
        return [(1, name), (4, value), (20, 3)]
    if isinstance(value, int):
        return [(1, name), (3, value), (20, 2)]
    return [(1, name), *((8, item) for item in value), (20, 7)]


def _any_size(name: str) -> Fields:
    """Four dimensions of sizes that only the pictures tell."""
    sizes: Fields = [(1, [(2, f"{name}_{axis}")]) for axis in range(4)]
    return [(1, name), (2, [(1, [(1, _FLOAT), (2, sizes)])])]


def _message(fields: Fields) -> bytes:
    """Fields in protobuf's encoding: integers as such, all else with its length before it."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts += [_varint(number << 3), _varint(value)]
            continue
        content = value.encode() if isinstance(value, str) else _message(value) if isinstance(value, list) else value
        parts += [_varint(number << 3 | 2), _varint(len(content)), content]
    return b"".join(parts)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
