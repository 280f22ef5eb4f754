"""What several benchmarks compare with: plain MONAI over the full volume, and how label maps agree.

`segment_plainly` is what a user of MONAI writes: `SlidingWindowInferer` over the full volume, one pass after the other,
no brain box, networks as MONAI builds them. Fusion and rules are metseg's own functions: the comparison is about the
way through the networks. Cases lie on a 1 mm grid, as the challenge's of 2023 do.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metseg.decide.decision import fuse_members
from metseg.decide.size_rules import apply_size_rules
from metseg.decide.threshold import member_labels
from metseg.labels import BRATS_REGIONS, LabelMap
from metseg.plan.bundle import Bundle
from metseg.predict.device import Device
from metseg.predict.engine import Engine, Member
from metseg.predict.members import MemberPrediction
from metseg.predict.passes import CaseNoise, augmented_images, flip
from metseg.predict.weights import load_member
from metseg.prepare.prepare import voxel_seed
from metseg.space.components import find_components

# ---- the path


def plain_engine(bundle: Bundle, device: Device) -> Engine:
    """The same weights in networks as MONAI builds them, in float32 and torch's default layout."""
    members = []
    for plan in bundle.plan.members:
        module = load_member(bundle.folder, plan)
        members.append(Member(plan, module, module.state_dict()))
    return Engine(bundle.plan, tuple(members), device)


def segment_plainly(folder: Path, engine: Engine) -> LabelMap:
    """A case's label map, on RAS axes."""
    import torch  # noqa: PLC0415 - heavy

    before = torch.get_num_threads()
    torch.set_num_threads(engine.device.threads)  # metseg leaves the threads to OpenVINO
    try:
        return _segment_plainly(folder, engine)
    finally:
        torch.set_num_threads(before)


def _segment_plainly(folder: Path, engine: Engine) -> LabelMap:
    import torch  # noqa: PLC0415 - heavy
    from monai.inferers import SlidingWindowInferer  # noqa: PLC0415 - heavy

    plan = engine.plan
    if plan.own_spacings:
        raise SystemExit(f"plan {plan.name}: members have grids of their own, this path knows one (paper, fine)")
    channels = read_channels(folder, engine)
    noise = CaseNoise(plan.tta, voxel_seed(channels, tuple(slice(None) for _ in range(3))))  # type: ignore[arg-type]
    predictions = []
    with torch.inference_mode():
        for member in engine.members:
            image = torch.from_numpy(np.stack([channels[name] for name in member.plan.channels]))
            network = as_peer(member.network, engine.device)
            window = plan.choose_window(member.plan)
            best = best_batch(network, image, window.size)
            infer = SlidingWindowInferer(
                window.size, best, overlap=window.overlap, mode="gaussian", padding_mode="replicate"
            )
            passes = [
                flip(infer(flip(copy[None], axes), network), axes)[0]
                for copy, flips in augmented_images(image, noise)
                for axes in flips
            ]
            predictions.append(MemberPrediction(member.plan.name, torch.stack(passes).mean(0).sigmoid().numpy()))
    votes = [member_labels(prediction.probabilities, plan.threshold) for prediction in predictions]
    return apply_size_rules(fuse_members(predictions, votes, plan), plan.postprocess)


def read_channels(folder: Path, engine: Engine) -> dict[str, np.ndarray]:
    """The scaled channels, read and turned by MONAI."""
    from monai.transforms import LoadImage, Orientation  # noqa: PLC0415 - heavy

    intensity = engine.plan.intensity
    if not intensity.depends_on_margin:
        raise SystemExit(f"plan {engine.plan.name}: plain MONAI takes percentiles over the volume, not over the brain")
    load, turn = LoadImage(image_only=True, ensure_channel_first=True), Orientation("RAS", labels=None)
    channels = {}
    for name in ("t1n", "t1c", "t2w", "t2f"):
        volume = np.asarray(turn(load(folder / f"{folder.name}-{name}.nii.gz"))[0], dtype=np.float32)
        lower, upper = np.percentile(volume, [intensity.lower_percentile, intensity.upper_percentile])
        channels[name] = np.clip((volume - lower) / (upper - lower), 0, 1).astype(np.float32)
    channels["sub"] = (channels["t1c"] - channels["t1n"]) ** 2
    return channels


def as_peer(network: Any, device: Device) -> Callable[[Any], Any]:
    """The network as a plain user runs it: autocast when the precision is not float32."""
    import torch  # noqa: PLC0415 - heavy

    def run(batch: Any) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=device.precision == "bfloat16"):
            return network(batch).float()

    return run


def best_batch(network: Callable[[Any], Any], image: Any, window: tuple[int, int, int]) -> int:
    """The quickest of a few batch sizes, per window; the search is not part of what is timed in the network."""
    place = tuple(slice(0, side) for side in window)
    seconds = {}
    for size in (1, 2):
        batch = image[(slice(None), *place)].expand(size, -1, -1, -1, -1).contiguous()
        start = time.perf_counter()
        network(batch)
        seconds[size] = (time.perf_counter() - start) / size
    return min(seconds, key=lambda size: seconds[size])


# ---- agreement


@dataclass(frozen=True, slots=True)
class Overlap:
    """How one region of two label maps of a case overlaps.

    Attributes:
        both: voxels in both maps.
        one: voxels in the first.
        other: voxels in the second.
        lesions: 26-connected components in the map that has more of them.
    """

    both: int
    one: int
    other: int
    lesions: int

    @property
    def dice(self) -> float:
        """1 where both are empty."""
        return 2 * self.both / (self.one + self.other) if self.one + self.other else 1.0

    @property
    def differing_a_lesion(self) -> float:
        """Voxels that only one map has, for each lesion."""
        return (self.one + self.other - 2 * self.both) / max(self.lesions, 1)


def overlaps(one: LabelMap, other: LabelMap) -> dict[str, Overlap]:
    """Overlap of WT, TC and ET."""
    pairs = zip(BRATS_REGIONS.names, BRATS_REGIONS.split(one), BRATS_REGIONS.split(other), strict=True)
    return {
        region: Overlap(int((a & b).sum()), int(a.sum()), int(b.sum()), max(_components(a), _components(b)))
        for region, a, b in pairs
    }


def pooled_dice(cases: list[dict[str, Overlap]]) -> dict[str, float]:
    """Dice of each region over all voxels of all cases."""
    found = {}
    for region in BRATS_REGIONS.names:
        parts = [case[region] for case in cases]
        both, one, other = (sum(getattr(part, name) for part in parts) for name in ("both", "one", "other"))
        found[region] = Overlap(both, one, other, 0).dice
    return found


def _components(mask: np.ndarray) -> int:
    return int(find_components(mask).sizes.size)
