"""How much memory a case will take and how much there is: a warning before the night instead of a kill in it.

An estimate from the header alone, for a run on the CPU: what is held (images, channels, probabilities) is counted, what
a network needs for one window is a multiple of its widest layer (docs/performance.md: how it was measured).
"""

import math
import resource
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from metseg.errors import InputError
from metseg.files.case import CaseFiles
from metseg.files.discovery import survey_cases
from metseg.files.image import ImageError, read_grid
from metseg.findings import Finding
from metseg.plan.networks import NetworkPlan
from metseg.plan.plan import PRESENCE, Plan, Spacing, WindowPlan, expand_sides
from metseg.predict.control_groups import control_groups
from metseg.predict.cpu import usable_cpus, usual_precision
from metseg.predict.engine import CPU_VOXELS_PER_THREAD
from metseg.predict.passes import NOISE_DRAWS, uses_noise
from metseg.space.grid import Grid
from metseg.space.resampling import find_resampling
from metseg.systems import OWN_GRID, SOURCE_MODALITY, modalities_to_find

FLOAT_BYTES: Final = 4

MEMINFO: Final = Path("/proc/meminfo")
"""Where Linux says what the machine has free."""

STATUS: Final = Path("/proc/self/status")
"""Where Linux says what this process has taken."""

PROGRAM_BYTES: Final = 440 * 10**6
"""Python with torch, OpenVINO and the small things, before the first case."""

BRAIN_MM: Final = (144, 184, 144)
"""Sides of a box that holds most adults' brains. Windows cover the brain's box, which the header doesn't tell; an image
whose skull was not stripped needs more."""

WINDOW_TENSORS: Final = {"float32": 5.0, "bfloat16": 3.5}
"""Float32 tensors as wide and as large as the first layer's output that live at once in a forward pass."""

KEPT_SHARE: Final = 1.3
"""What the networks' part takes over what they have at once: freed memory is kept for the next tensor
(docs/decisions/051-freed-memory-is-kept.md), which does not always fit there. Measured: 1.0 to 1.25."""

TILE_BYTES: Final = 750 * 10**6
"""What a tile of DeepMedic takes at the paper's width, with room."""


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """What a case needs, in bytes.

    Attributes:
        waiting: its images and channels: what it holds before its networks run, and at most behind them.
        working: what comes to that at its peak.
    """

    waiting: int
    working: int

    @property
    def total(self) -> int:
        """Of the case alone, with the program itself."""
        return PROGRAM_BYTES + self.waiting + self.working


NOTHING: Final = MemoryNeed(0, 0)
"""Of a case whose header can't be read."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What the cases of a run need, and what there is.

    Attributes:
        needs: by case ID; a case that is not in it needs nothing.
        available: bytes that this process may have in all; None without a limit.
    """

    needs: Mapping[str, MemoryNeed]
    available: int | None

    def suffices(self, files: CaseFiles, *beside: CaseFiles) -> bool:
        """Whether a case fits at its peak while others are read or written; not where one of these never fits."""
        if self.available is None:
            return True
        need, *others = map(self._need, (files, *beside))
        together = need.total + sum(other.waiting for other in others)
        return max(together, *(other.total for other in others), 0) <= self.available

    def in_order(self, cases: Sequence[CaseFiles]) -> tuple[CaseFiles, ...]:
        """The cases that fit, as they were given, then the others, the smallest first."""
        return tuple(sorted(cases, key=lambda files: 0 if self.suffices(files) else self._need(files).total))

    def shortages(self, cases: Sequence[CaseFiles]) -> tuple[Finding, ...]:
        """A warning for each case that probably needs more than there is."""
        known = [files for files in cases if files.case_id in self.needs]
        return tuple(self._shortage(files) for files in known if not self.suffices(files))

    def _need(self, files: CaseFiles) -> MemoryNeed:
        return self.needs.get(files.case_id, NOTHING)

    def _shortage(self, files: CaseFiles) -> Finding:
        need, free = self._need(files).total, self.available or 0
        what = f"needs about {need / 1e9:.1f} GB of memory on the CPU, {free / 1e9:.1f} GB are free"
        hint = "Run it where there is more, or with a plan of smaller windows; it is tried last and alone."
        return Finding(files.case_id, "warning", "memory", what, hint)


UNLIMITED: Final = Memory({}, None)


def weigh_cases(cases: Sequence[CaseFiles], plan: Plan, available: int | None = None) -> Memory:
    """Estimates what cases need, from their headers.

    Args:
        cases: to be segmented; what else is wrong with them is for `check_cases` to say.
        plan: by which.
        available: None for what this process may have now.
    """
    limit = available_memory() if available is None else available
    if limit is None:
        return UNLIMITED
    return Memory({files.case_id: need for files in cases if (need := _case_need(files, plan)) is not None}, limit)


def find_memory_shortage(data_path: Path, plan: Plan, available: int | None = None) -> tuple[Finding, ...]:
    """A warning for each case of a folder that probably needs more memory than there is.

    Args:
        data_path: the folder; whatever else is wrong with it is for `check_cases` to say.
        plan: what will run.
        available: None for what there is now.
    """
    try:
        cases = survey_cases(data_path, modalities=modalities_to_find(plan.modalities)).cases
    except InputError:
        return ()
    return weigh_cases(cases, plan, available).shortages(cases)


def estimate_need(grid: Grid, plan: Plan, scans: Sequence[Grid] = ()) -> MemoryNeed:
    """Estimates what a case needs.

    Args:
        grid: of the case's source image.
        plan: window, members, spacing.
        scans: the grids of scans that have one of their own.
    """
    source = math.prod(grid.shape)
    network = math.prod(find_resampling(grid, plan.spacing_mm, plan.frame).network.shape)
    on_own_grids = sum(math.prod(find_resampling(grid, spacing).network.shape) for spacing in plan.own_spacings)
    scan_voxels = [math.prod(scan.shape) for scan in scans]
    images = (len(plan.modalities) - len(scans)) * source + sum(scan_voxels)
    channels = len({channel for member in plan.members for channel in member.channels} - PRESENCE.keys())
    reading = 2 * max([source, *scan_voxels])  # of one image: as stored, up to float64
    preparing = 2 * network  # of one image: resampled, sorted for its percentiles
    return MemoryNeed(
        waiting=FLOAT_BYTES * (images + channels * (network + on_own_grids)),
        working=max(FLOAT_BYTES * max(reading, preparing), _networks_bytes(grid, plan)),
    )


def available_memory() -> int | None:
    """Bytes that this process may have in all: what it has and what is free, within its own and its containers' limits.

    Returns:
        None where the system does not say.
    """
    free = (_kilobytes(MEMINFO, "MemAvailable"), *_free_by_rlimit(), *map(_free_in_group, control_groups("memory")))
    least = min((found for found in free if found is not None), default=None)
    return None if least is None else max(0, least) + _own_bytes()


def _case_need(files: CaseFiles, plan: Plan) -> MemoryNeed | None:
    """None where the case has no readable header, which its own turn will say."""
    try:
        scans = [read_grid(path) for modality, path in files.images.items() if modality in OWN_GRID & plan.modalities]
        return estimate_need(read_grid(files.images[SOURCE_MODALITY]), plan, scans)
    except (ImageError, KeyError):
        return None


def _networks_bytes(grid: Grid, plan: Plan) -> int:
    """What the networks have at once: the channels' boxes, one member at work, and every member's probabilities."""
    regions, plan_box = len(plan.regions), math.prod(_window_and_box(grid, plan, plan.window, plan.spacing_mm)[1])
    boxes: dict[tuple[object, ...], int] = {}
    most = 0.0
    for number, member in enumerate(plan.members, 1):
        key = plan.choose_window(member), plan.choose_spacing(member)
        sides, covered = _window_and_box(grid, plan, *key)
        box, read, own = math.prod(covered), len(member.channels), len(member.regions)
        boxes |= {(channel, *key): box for channel in member.channels}
        noise = (NOISE_DRAWS + 1) * read * box if uses_noise(plan.tta) else 0
        image_and_sums = (1.5 * read + own + 1) * box  # a copy in the networks' precision, how often a voxel was seen
        before = sum(boxes.values()) + number * regions * plan_box
        voxels = before + noise + image_and_sums
        at_once = max(math.prod(sides), usable_cpus() * CPU_VOXELS_PER_THREAD)
        most = max(most, FLOAT_BYTES * voxels + _window_bytes(member.network, at_once))
    return round(KEPT_SHARE * most)


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


def _window_bytes(network: NetworkPlan, voxels: int) -> float:
    tensors = WINDOW_TENSORS[usual_precision()]
    return TILE_BYTES if network.runs_in_tiles else tensors * FLOAT_BYTES * network.width * voxels


def _free_by_rlimit() -> Iterator[int]:
    """What `ulimit -v` and `ulimit -d` leave."""
    for limit, used in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        (granted, _), taken = resource.getrlimit(limit), _kilobytes(STATUS, used)
        if granted != resource.RLIM_INFINITY and taken is not None:
            yield granted - taken


def _free_in_group(folder: Path) -> int | None:
    """What a control group leaves: its limit without what is used, in version 2 or 1; None where it sets no limit."""
    for limit, used, cached in (
        ("memory.max", "memory.current", ("active_file", "inactive_file")),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_active_file", "total_inactive_file")),
    ):
        try:
            free = int((folder / limit).read_text(encoding="ascii")) - int((folder / used).read_text(encoding="ascii"))
            lines = (line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
            return free + sum(int(value) for name, value in lines if name in cached)  # files in the cache give way
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return None


def _own_bytes() -> int:
    """What this process has, without what it has of files: that gives way."""
    return _kilobytes(STATUS, "RssAnon") or 0


def _kilobytes(path: Path, name: str) -> int | None:
    """An entry of a table in /proc, in bytes."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)
