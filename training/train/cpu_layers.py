"""The same network, arranged for training on a CPU: layers whose gradients torch computes slowly with channels last.

Measured on a crop of 72x88x72 with 8 filters in bfloat16, one thread: torch's Mish takes a quarter of a step, because
its kernels are scalar in bfloat16, and the gradient of its GroupNorm another tenth, because it has no channels-last
kernel. Nothing is approximated: the layers compute the same functions, in float32 inside
(benchmarks.training_layers). Inference on a CPU runs OpenVINO's graph instead (`metseg.predict.graph_network`).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional
from typing_extensions import override

LINEAR_FROM = 20.0
"""From here on Mish is the identity in float32; beyond, e^2x would overflow."""

SHARE = 1 << 16
"""Elements at a time and thread: with their temporaries they stay in a core's cache. Of under half as many torch makes
one share."""

HALVING = ((3, 3, 3), (2, 2, 2), (1, 1, 1))
"""Kernel, stride and padding of the convolution that halves a volume."""

SHORT_AXIS = 2
"""Voxels that it turns into one."""


class _MishFunction(Function):
    """mish(x) = x t, t = m / (1 + m), m = e + e^2 / 2, e = e^x; and its derivative, t + x (e + e^2) / (1 + m)^2."""

    @staticmethod
    def forward(ctx: Any, batch: Tensor) -> Tensor:
        dense = batch.movedim(1, -1).contiguous()
        source = dense.view(-1)
        result, slope = torch.empty_like(source), torch.empty_like(source)
        chunk = _chunk(source.numel())
        buffers = [torch.empty(chunk, device=source.device) for _ in range(4)]
        for start in range(0, source.numel(), chunk):
            part = slice(start, min(start + chunk, source.numel()))
            x, e, t, r = (buffer[: part.stop - start] for buffer in buffers)
            x.copy_(source[part])
            torch.clamp(x, max=LINEAR_FROM, out=e).exp_()
            torch.addcmul(e, e, e, value=0.5, out=t)
            torch.add(t, 1, out=r).reciprocal_()
            t.mul_(r)
            e.addcmul_(e, e).mul_(r).mul_(r)
            slope[part] = torch.addcmul(t, x, e, out=e)
            result[part] = x.mul_(t)
        ctx.save_for_backward(slope.view(dense.shape).movedim(-1, 1))
        return result.view(dense.shape).movedim(-1, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        result: Tensor = gradient * slope
        return result


class TrainingMish(nn.Module):
    """Mish of a batch of any shape, channels-last layout for speed; keeps the derivative instead of the input."""

    @override
    def forward(self, batch: Tensor) -> Tensor:
        result: Tensor = _MishFunction.apply(batch)  # type: ignore[no-untyped-call]
        return result


class _GroupNormFunction(Function):
    """GroupNorm of one sample, forward by torch's kernel, the gradient from sums that batch norm's kernel takes."""

    @staticmethod
    def forward(ctx: Any, sample: Tensor, norm: nn.GroupNorm, weight: Tensor, bias: Tensor) -> Tensor:
        channels, voxels = sample.shape[1], sample[0, 0].numel()
        result, mean, rstd = torch.native_group_norm(
            sample, weight, bias, 1, channels, voxels, norm.num_groups, norm.eps
        )
        ctx.save_for_backward(sample, weight, mean, rstd)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        sample, weight, group_mean, group_rstd = ctx.saved_tensors
        groups, channels = group_mean.shape[1], sample.shape[1]
        members = channels // groups
        mean, rstd = (part.float().view(-1).repeat_interleave(members) for part in (group_mean, group_rstd))
        gradient = gradient.contiguous(memory_format=torch.channels_last_3d)
        _, weight_gradient, bias_gradient = torch.ops.aten.native_batch_norm_backward(
            gradient,
            sample,
            weight,
            running_mean=None,
            running_var=None,
            save_mean=mean,
            save_invstd=rstd,
            train=True,
            eps=0.0,  # is in rstd
            output_mask=[False, True, True],
        )
        # dx = rstd (w dy - mean of w dy - x' mean of w dy x'), means over a group, x' the normalised input.
        count = members * sample[0, 0].numel()
        level, tilt = (
            (weight.float() * sums.float()).view(groups, members).sum(1).repeat_interleave(members) / count
            for sums in (bias_gradient, weight_gradient)
        )
        of_gradient, of_sample = weight.float() * rstd, -tilt * rstd.square()
        constant = -level * rstd - of_sample * mean
        result = torch.empty_like(sample)
        rows, *read = (part.movedim(1, -1).view(-1, channels) for part in (result, gradient, sample))
        share = _chunk(rows.numel()) // channels
        buffers = [torch.empty(share, channels) for _ in read]
        for start in range(0, len(rows), share):
            part = slice(start, min(start + share, len(rows)))
            dy, x = (
                buffer[: part.stop - start].copy_(whole[part]) for buffer, whole in zip(buffers, read, strict=True)
            )
            rows[part] = dy.mul_(of_gradient).addcmul_(x, of_sample).add_(constant)
        return result, None, weight_gradient, bias_gradient


class TrainingGroupNorm(nn.GroupNorm):
    """GroupNorm of a batch of shape (n, channels, x, y, z), sample by sample; one channel a group is batch norm."""

    @override
    def forward(self, input: Tensor) -> Tensor:
        if len(input) == 1:  # a split's gradient is a copy
            return self._normalise(input)
        return torch.cat([self._normalise(sample) for sample in input.split(1)])

    def _normalise(self, sample: Tensor) -> Tensor:
        if self.num_groups == self.num_channels:
            return functional.batch_norm(sample, None, None, self.weight, self.bias, training=True, eps=self.eps)
        sample = sample.contiguous(memory_format=torch.channels_last_3d)
        result: Tensor = _GroupNormFunction.apply(  # type: ignore[no-untyped-call]
            sample, self, self.weight, self.bias
        )
        return result


class ShortConv(nn.Conv3d):
    """A convolution with kernel 3 and stride 2 whose last axis may be as short as one or two voxels.

    There oneDNN's bfloat16 kernel for channels-last layout reads memory that is not the input's and gives any numbers.
    A zero behind the input, as the convolution's own padding has, makes two voxels of which the first is the answer.
    """

    @override
    def forward(self, input: Tensor) -> Tensor:
        if input.shape[-1] > SHORT_AXIS:
            return super().forward(input)
        widened = functional.pad(input, (0, SHORT_AXIS + 1 - input.shape[-1]))
        return super().forward(widened.contiguous(memory_format=torch.channels_last_3d))[..., :1]


def arrange_for_cpu(network: nn.Module) -> nn.Module:
    """Channels-last weights and the layers above in place of torch's; parameters keep their names and values.

    Returns:
        The same network, changed.
    """
    for path, module in list(network.named_modules(remove_duplicate=False)):  # one in several places, in each
        parent, _, name = path.rpartition(".")
        if type(module).__name__ == "Mish":  # MONAI has a class of its own beside torch's
            setattr(network.get_submodule(parent), name, TrainingMish())
        elif isinstance(module, nn.GroupNorm):
            module.__class__ = TrainingGroupNorm
        elif type(module) is nn.Conv3d and (module.kernel_size, module.stride, module.padding) == HALVING:
            module.__class__ = ShortConv
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload,no-any-return]  # stubs lack it


def _chunk(elements: int) -> int:
    """How many of so many elements are taken at a time."""
    return min(SHARE * max(torch.get_num_threads(), 2), elements)
