"""What several tests need: small cases on disk, small bundles, a plain sliding window."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from safetensors.torch import save

from metseg.labels import BRATS_REGIONS
from metseg.network import build_network
from metseg.plan.bundle import describe_member
from metseg.plan.plan import MemberPlan, Plan, SegResNetPlan
from phantoms import LPS, phantom

SMALL_NETWORK = SegResNetPlan(init_filters=8, blocks_down=(1, 1), blocks_up=(1,))
PHANTOM_SHARE = 0.4
"""Of a phantom's voxels that are brain; the bundles were trained on the like."""

ALL = ("t1n", "t1c", "t2w", "t2f")
SUB = ("t1n", "t1c", "t2f", "sub")


def write_case(
    folder: Path,
    case_id: str,
    *,
    images: Mapping[str, NDArray[np.float32]] | None = None,
    affine: NDArray[np.float64] = LPS,
    dtype: type = np.int16,
) -> Path:
    """Writes a case in the challenge's layout and returns its folder."""
    case = folder / case_id
    case.mkdir(parents=True)
    for modality, volume in (phantom() if images is None else images).items():
        image = nib.Nifti1Image(volume.astype(dtype), affine)
        image.header.set_xyzt_units("mm")
        nib.save(image, case / f"{case_id}-{modality}.nii.gz")
    return case


def write_bundle(
    folder: Path,
    *,
    channels: Sequence[tuple[str, ...]] = (ALL, ALL, SUB),
    network: SegResNetPlan = SMALL_NETWORK,
    scale: float = 1.0,
    regions: Sequence[str] = BRATS_REGIONS.names,
    optional: Sequence[str] = (),
    **plan: object,
) -> Path:
    """Writes a bundle of untrained members whose output is not trivial; `plan` overrides sections of its plan."""
    folder.mkdir(parents=True)
    members = []
    for number, names in enumerate(channels):
        torch.manual_seed(number)
        model = build_network(network, in_channels=len(names), out_channels=len(regions))
        state = {key: value * scale for key, value in model.state_dict().items()}
        member = MemberPlan(
            name=f"m{number}",
            weights=f"m{number}.safetensors",
            sha256="0" * 64,
            channels=names,
            optional=optional,
            regions=regions,
            network=network,
        )
        content = save(state, describe_member(member))
        (folder / member.weights).write_bytes(content)
        members.append(member.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()}))
    sections = {"window": {"size": (16, 24, 16), "overlap": 0.5}, "tta": {"variant": "flips"}}
    sections |= {"brain_share": PHANTOM_SHARE} | plan
    content = Plan.model_validate({"name": "test", "members": [m.model_dump() for m in members], **sections})
    (folder / "plan.yaml").write_text(yaml.safe_dump(content.model_dump(mode="json"), sort_keys=False))
    return folder


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Name to content of every file of a flat folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def names_in(folder: Path) -> list[str]:
    """Names of everything in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())
