"""The layers that OpenVINO's graphs of the networks are made of, each from a member's frozen parameters.

A layer takes and gives a node of shape (batch, channels, x, y, z). Each computes what torch's layer of the same
parameters computes, to rounding (tests/app/network/test_graphs.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from openvino import opset15 as ops

Node: TypeAlias = Any
"""A value of the graph; OpenVINO's own annotations lack the operators."""

EPSILON: Final = 1e-5
"""Added to a variance before its root, as torch's norms do by default."""

SPATIAL: Final = (2, 3, 4)
"""Axes of a volume."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a part of a network, by their names within it.

    Attributes:
        state: all parameters of the network.
        prefix: what names of this part begin with.
    """

    state: Mapping[str, NDArray[np.float32]]
    prefix: str = ""

    def part(self, name: str) -> "Parameters":
        """Those of a part within this one."""
        return Parameters(self.state, f"{self.prefix}{name}.")

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        return self.state[self.prefix + name]

    def __contains__(self, name: object) -> bool:
        return f"{self.prefix}{name}" in self.state


def convolution(features: Node, parameters: Parameters, *, stride: int = 1, padded: bool = True) -> Node:
    """A convolution, with its bias where it has one.

    Args:
        features: what it reads.
        parameters: `weight`, shape (out, in, kernel, kernel, kernel), and perhaps `bias`.
        stride: along every axis.
        padded: with zeros, so that a stride of 1 keeps the shape; else the result is smaller.
    """
    weight = parameters["weight"]
    rims = [(side - 1) // 2 if padded else 0 for side in weight.shape[2:]]
    result = ops.convolution(features, constant(weight), [stride] * 3, rims, rims, [1] * 3)
    return ops.add(result, by_channel(parameters["bias"])) if "bias" in parameters else result


def group_norm(features: Node, parameters: Parameters, *, groups: int, in_float32: bool) -> Node:
    """Group normalisation of a batch of one, the same for any number of threads.

    OpenVINO's own operation adds up a group's values in an order that depends on the threads, and one of a million
    voxels loses three digits. In float32 the moments are means of means. In half precision those would be rounded in
    between; there each group is laid out as one row, which one thread adds up in float32.
    """
    shape = [int(side) for side in features.shape]
    normalise = _normalise_by_means if in_float32 else _normalise_rows
    normalised = ops.reshape(normalise(features, groups), constant(shape, np.int64), special_zero=False)
    return ops.add(ops.multiply(normalised, by_channel(parameters["weight"])), by_channel(parameters["bias"]))


def _normalise_by_means(features: Node, groups: int) -> Node:
    _, channels, x, y, z = (int(side) for side in features.shape)
    planes = channels // groups * x
    values = ops.reshape(features, constant([groups, planes, y * z], np.int64), special_zero=False)

    def mean(numbers: Node) -> Node:
        of_planes = ops.reduce_mean(numbers, constant([2], np.int64), keep_dims=False)
        row = ops.reshape(of_planes, constant([groups, 1, planes], np.int64), special_zero=False)
        return ops.reduce_mean(row, constant([2], np.int64), keep_dims=True)

    distances = ops.subtract(values, mean(values))
    variance = mean(ops.multiply(distances, distances))
    return ops.divide(distances, ops.sqrt(ops.add(variance, constant(EPSILON))))


def _normalise_rows(features: Node, groups: int) -> Node:
    rows = ops.reshape(features, constant([1, groups, -1], np.int64), special_zero=False)
    return ops.mvn(rows, constant([2], np.int64), normalize_variance=True, eps=EPSILON, eps_mode="inside_sqrt")


def batch_norm(features: Node, parameters: Parameters) -> Node:
    """Batch normalisation by the moments seen in training."""
    moments = [constant(parameters[name]) for name in ("weight", "bias", "running_mean", "running_var")]
    return ops.batch_norm_inference(features, *moments, EPSILON)


def cube_means(features: Node, factor: int) -> Node:
    """Means over cubes of so many voxels along a side."""
    sides = [factor] * 3
    return ops.avg_pool(features, sides, [0] * 3, [0] * 3, sides, exclude_pad=True)


def enlarge(features: Node, factor: int) -> Node:
    """Trilinear interpolation to a grid so many times finer; voxels are cubes, not points."""
    return _resize(features, factor, "linear_onnx", "half_pixel")


def repeat(features: Node, factor: int) -> Node:
    """Each voxel as a cube of so many voxels along a side."""
    return features if factor == 1 else _resize(features, factor, "nearest", "asymmetric", nearest_mode="floor")


def _resize(features: Node, factor: int, mode: str, positions: str, **options: str) -> Node:
    """By OpenVINO's names of how values are found and of where samples lie."""
    scales, axes = constant([float(factor)] * 3), constant(SPATIAL, np.int64)
    return ops.interpolate(
        features, scales, mode, "scales", coordinate_transformation_mode=positions, axes=axes, **options
    )


def crop(features: Node, rim: int) -> Node:
    """Without so many of the outermost voxels on each side."""
    if rim == 0:
        return features
    first, last, step = ([value] * 3 for value in (rim, -rim, 1))
    return ops.slice(features, *(constant(part, np.int64) for part in (first, last, step, SPATIAL)))


def by_channel(values: NDArray[np.float32]) -> Node:
    """One number for each channel, to be added or multiplied."""
    return constant(values.reshape(1, -1, 1, 1, 1))


def constant(values: ArrayLike | Sequence[int], dtype: type[np.generic] = np.float32) -> Node:
    """Numbers of the graph; it shares an array's memory where type and layout allow."""
    return ops.constant(np.asarray(values, dtype=dtype, order="C"), shared_memory=True)
