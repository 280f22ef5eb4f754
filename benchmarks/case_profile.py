"""Where the seconds of a case go, and how far the networks are from what the machine can do.

    python benchmarks/case_profile.py CASE_FOLDER [--weights weights/mets] [--plan NAME] [--device auto|cpu|cuda]

Prints the stages of one case (the second of two runs, so that nothing is read or compiled for the first time), the
first member's operations by kind for one window, and two lower bounds of a window's time: its multiply-adds over the
measured rate of a large matrix product in the same precision, and the bytes that its layers read and write over the
measured bandwidth of a copy. Nothing else may run on the machine.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from metseg.bundle import default_bundle_folder, open_bundle
from metseg.device import choose_device
from metseg.discovery import discover_cases
from metseg.ensemble import Ensemble, load_ensemble, plan_layout
from metseg.pipeline import load_case, segment_case
from metseg.records import Stopwatch
from metseg.tta import count_passes

KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "convolution": ("conv", "mkldnn_convolution", "cudnn_convolution"),
    "activation": ("mish", "exp", "div", "clamp"),
    "normalisation": ("norm", "mean", "square", "sum"),
    "upsampling": ("upsample",),
    "addition": ("add",),
    "copies": ("copy", "empty", "contiguous", "clone", "to"),
}
"""How kinds of work are recognised in the names of torch's operations; the first that fits counts."""

GIGA: Final = 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", type=Path)
    parser.add_argument("--weights", type=Path, default=None)
    parser.add_argument("--plan", default=None)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    arguments = parser.parse_args()
    bundle = open_bundle(arguments.weights or default_bundle_folder(), arguments.plan)
    start = time.perf_counter()
    ensemble = load_ensemble(bundle, choose_device(arguments.device))
    print(f"{bundle.plan.name}, {ensemble.device.description}, {ensemble.device.threads} threads")
    print(f"loading the members: {time.perf_counter() - start:.1f} s")
    print_stages(arguments.case, ensemble)
    window, channels = window_of(arguments.case, ensemble)
    print_window(ensemble, window, channels)


def print_stages(folder: Path, ensemble: Ensemble) -> None:
    (files,) = discover_cases(folder)
    for _ in range(2):
        loaded = load_case(files, ensemble)
        watch = Stopwatch()
        segment_case(loaded.prepared, ensemble, watch)
    seconds = {**loaded.watch.seconds, **watch.seconds}
    whole = sum(seconds.values())
    print(f"\n{files.case_id}: {whole:.2f} s without writing")
    for name, spent in seconds.items():
        print(f"  {name:12s} {spent:8.3f} s  {spent / whole:6.1%}")


def window_of(folder: Path, ensemble: Ensemble) -> tuple[tuple[int, int, int], int]:
    (files,) = discover_cases(folder)
    layout = plan_layout(load_case(files, ensemble).prepared, ensemble.plan)
    passes = count_passes(ensemble.plan.tta)
    print(
        f"\nwindow {layout.window}, {len(layout.origins)} a pass, {passes} passes, {len(ensemble.members)} members: "
        f"{len(layout.origins) * passes * len(ensemble.members)} network calls"
    )
    return layout.window, len(ensemble.members[0].plan.channels)


def print_window(ensemble: Ensemble, window: tuple[int, int, int], channels: int) -> None:
    """The first member on one window of noise."""
    device = torch.device(ensemble.device.name)
    network = ensemble.members[0].network
    batch = torch.rand(1, channels, *window, device=device).to(ensemble.device.dtype)
    batch = batch.contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        window_s = best_time(lambda: network(batch), device)
        with FlopCounterMode(display=False) as counter:
            network(batch)
        moved = bytes_moved(network, batch)
        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
        with profile(activities=activities) as profiled:
            network(batch)
    print_kinds(profiled, device)
    rate, bandwidth = matrix_rate(ensemble, device), copy_bandwidth(device)
    operations = float(counter.get_total_flops())
    bounds = {"operations": operations / rate, "bytes": moved / bandwidth}
    print(f"\none window takes {window_s:.3f} s")
    print(f"  operations {operations / GIGA:8.1f} G at {rate / GIGA:8.1f} G/s: at least {bounds['operations']:.3f} s")
    print(f"  bytes      {moved / GIGA:8.2f} G at {bandwidth / GIGA:8.1f} G/s: at least {bounds['bytes']:.3f} s")
    print(f"  {window_s / max(bounds.values()):.1f} times the larger bound")


def best_time(work: Callable[[], Any], device: torch.device, repeats: int = 3) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def bytes_moved(network: nn.Module, batch: Tensor) -> int:
    """Bytes that the layers read and write when each is by itself: inputs, outputs and parameters of every leaf."""
    total = 0

    def count(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal total
        tensors = [item for item in (*inputs, output, *module.parameters(recurse=False)) if isinstance(item, Tensor)]
        total += sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    hooks = [module.register_forward_hook(count) for module in network.modules() if not list(module.children())]
    network(batch)
    for hook in hooks:
        hook.remove()
    return total


def print_kinds(profiled: Any, device: torch.device) -> None:
    field = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    spent: dict[str, float] = {}
    for event in profiled.key_averages():
        name = event.key.removeprefix("aten::").lower()
        kind = next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "other")
        spent[kind] = spent.get(kind, 0.0) + getattr(event, field) / 1e6
    whole = sum(spent.values())
    print("\nfirst member, one window, by kind of operation (with the profiler's own cost)")
    for kind, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"  {kind:14s} {seconds:8.3f} s  {seconds / whole:6.1%}")


def matrix_rate(ensemble: Ensemble, device: torch.device, side: int = 2048) -> float:
    """Operations (a multiply-add counts as two) a second of a square matrix product in the ensemble's precision."""
    one = torch.rand(side, side, device=device).to(ensemble.device.dtype)
    return float(2 * side**3 / best_time(lambda: one @ one, device, 5))


def copy_bandwidth(device: torch.device, megabytes: int = 512) -> float:
    """Bytes a second that a large copy reads and writes together."""
    source = torch.from_numpy(np.ones(megabytes * 2**20, dtype=np.uint8)).to(device)
    target = torch.empty_like(source)
    return 2 * source.numel() / best_time(lambda: target.copy_(source), device, 5)


if __name__ == "__main__":
    main()
