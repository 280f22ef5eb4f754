"""How much memory a case will take and how much there is: a warning before the night instead of a kill in it.

An estimate from the header alone, for a run on the CPU: what is held (images, channels, probabilities) is counted, what
a network needs for one window is a multiple of its widest layer (docs/performance.md: how it was measured).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from metseg.errors import InputError
from metseg.files.case import CaseFiles
from metseg.files.discovery import survey_cases
from metseg.files.header import image_grid, parse_header
from metseg.files.image import ImageError, read_shape
from metseg.findings import Finding
from metseg.plan.networks import NetworkPlan
from metseg.plan.plan import Plan, Spacing, WindowPlan, expand_sides
from metseg.predict.cpu import CGROUP
from metseg.predict.passes import NOISE_DRAWS, uses_noise
from metseg.space.grid import Grid
from metseg.space.resampling import find_resampling
from metseg.systems import OWN_GRID, SOURCE_MODALITY, modalities_to_find

FLOAT_BYTES: Final = 4

MEMINFO: Final = Path("/proc/meminfo")
"""Where Linux says what the machine has free."""

PROGRAM_BYTES: Final = 500 * 10**6
"""Python with torch, MONAI and the small things, before the first case."""

BRAIN_MM: Final = (160, 200, 160)
"""Sides of a box that holds an adult's brain. Windows cover the brain's box, which the header doesn't tell; an image
whose skull was not stripped needs more."""

CASES_AT_ONCE: Final = 2
"""One at work, one read ahead."""

WINDOW_TENSORS: Final = 8
"""Float32 tensors as wide and as large as the first layer's output that live at once in a forward pass. Measured: 7.0
in float32, the like of 3.5 to 5.1 in bfloat16."""

TILE_BYTES: Final = 10**9
"""What a tile of DeepMedic takes at the paper's width, with room."""


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """What a case needs at its peak, in bytes.

    Attributes:
        held: images, channels and probabilities of the cases in work.
        window: one window on its way through a network.
    """

    held: int
    window: int

    @property
    def total(self) -> int:
        """With the program itself."""
        return PROGRAM_BYTES + self.held + self.window


def estimate_need(grid: Grid, plan: Plan, scans: Sequence[Grid] = ()) -> MemoryNeed:
    """Estimates the peak of one case in a batch of such cases.

    Args:
        grid: of the case's source image.
        plan: window, members, spacing.
        scans: the grids of scans that have one of their own.
    """
    network_shape = find_resampling(grid, plan.spacing_mm, plan.frame).network.shape
    source, network = math.prod(grid.shape), math.prod(network_shape)
    keys = {(plan.choose_window(member), plan.choose_spacing(member)) for member in plan.members}
    sides = {key: _window_and_box(grid, plan, *key) for key in keys}
    box = sum(math.prod(covered) for _, covered in sides.values())
    channels = {channel for member in plan.members for channel in member.channels}
    widest = max(len(member.channels) for member in plan.members)
    regions = len(plan.regions)
    images = (len(plan.modalities) - len(scans)) * source + sum(math.prod(scan.shape) for scan in scans)
    on_own_grids = sum(math.prod(find_resampling(grid, spacing).network.shape) for spacing in plan.own_spacings)
    case = images + len(channels) * (network + on_own_grids)
    transient = 2 * network  # of one image: resampled, sorted for its percentiles
    noise = NOISE_DRAWS * widest if uses_noise(plan.tta) else 0
    on_box = len(channels) + 2 * widest + noise + regions * (len(plan.members) + 2) + 2
    return MemoryNeed(
        held=FLOAT_BYTES * (CASES_AT_ONCE * case + transient + on_box * box),
        window=max(
            _window_bytes(member.network, math.prod(sides[plan.choose_window(member), plan.choose_spacing(member)][0]))
            for member in plan.members
        ),
    )


def free_memory() -> int | None:
    """Bytes that this process may still take: what the machine has free, cut to the container's limit (cgroup 1, 2).

    Returns:
        None where the system does not say.
    """
    return min((found for found in (_free_on_machine(), *_free_in_cgroup()) if found is not None), default=None)


def find_memory_shortage(data_path: Path, plan: Plan, free_bytes: int | None = None) -> tuple[Finding, ...]:
    """A warning for each case that probably needs more memory than there is.

    Args:
        data_path: folder of cases; whatever else is wrong with it is for `check_cases` to say.
        plan: what will run.
        free_bytes: None for what is free now.
    """
    free = free_memory() if free_bytes is None else free_bytes
    if free is None:
        return ()
    try:
        cases = survey_cases(data_path, modalities=modalities_to_find(plan.modalities)).cases
    except InputError:
        return ()
    return tuple(finding for case in cases for finding in _case_shortage(case, plan, free))


def _case_shortage(files: CaseFiles, plan: Plan, free: int) -> Iterable[Finding]:
    wanted = {SOURCE_MODALITY, *OWN_GRID}
    grids = {modality: _read_grid(path) for modality, path in files.images.items() if modality in wanted}
    grid = grids.get(SOURCE_MODALITY)
    if grid is None:
        return
    scans = [found for modality, found in grids.items() if modality in OWN_GRID and found is not None]
    need = estimate_need(grid, plan, scans).total
    if need > free:
        what = f"needs about {need / 1e9:.1f} GB of memory on the CPU, {free / 1e9:.1f} GB are free"
        hint = "Run it where there is more, or with a plan of smaller windows."
        yield Finding(files.case_id, "warning", "memory", what, hint)


def _read_grid(path: Path) -> Grid | None:
    """The grid that a file's header states; None where it can't be read."""
    try:
        grid, _ = image_grid(parse_header(read_shape(path)[1]))
    except ImageError:
        return None
    return grid


def _window_and_box(
    grid: Grid, plan: Plan, window: WindowPlan, spacing_mm: Spacing
) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """Sides of a window, and of the box that such windows cover, in voxels of the spacing."""
    shape = find_resampling(grid, spacing_mm, plan.frame).network.shape
    brain = [
        min(side, math.ceil(mm / step))
        for side, mm, step in zip(shape, BRAIN_MM, expand_sides(spacing_mm), strict=True)
    ]
    sides = _window_shape(window, brain, plan.side_multiples)
    return sides, tuple(map(max, shape if window.extent == "volume" else brain, sides))


def _window_shape(window: WindowPlan, brain: Sequence[int], multiples: Sequence[int]) -> tuple[int, int, int]:
    x, y, z = (
        -(-side // multiple) * multiple if window.extent == "whole" else size
        for side, size, multiple in zip(brain, window.size, multiples, strict=True)
    )
    return x, y, z


def _window_bytes(network: NetworkPlan, voxels: int) -> int:
    return TILE_BYTES if network.runs_in_tiles else WINDOW_TENSORS * FLOAT_BYTES * network.width * voxels


def _free_on_machine() -> int | None:
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None


def _free_in_cgroup() -> Iterable[int]:
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            text = (CGROUP / limit).read_text(encoding="ascii").strip()
            if text != "max":
                in_use = int((CGROUP / used).read_text(encoding="ascii"))
                yield int(text) - in_use + _reclaimable((CGROUP / limit).with_name("memory.stat"))
        except (OSError, ValueError):
            continue


def _reclaimable(statistics: Path) -> int:
    """Files in the cache count as used, but give way."""
    lines = (line.split() for line in statistics.read_text(encoding="ascii").splitlines())
    return sum(int(value) for name, value in lines if name in {"inactive_file", "total_inactive_file"})
