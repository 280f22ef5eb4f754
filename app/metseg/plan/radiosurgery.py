"""The parts of a plan that only the radiosurgery system has (Hu et al. 2019, sections 2.1 and 3.1)."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from metseg.plan.document import Section


class RadiosurgeryIntensityPlan(Section):
    """A CT in a brain window, an equalised MR, each then with zero mean and unit variance over the whole frame.

    Attributes:
        kind: tells it from percentile scaling.
        ct_level_hu: middle of the CT's window. The paper names a brain window without figures: 40 and 80 are usual.
        ct_width_hu: its width.
        lower_percentile: of the MR, over all voxels: black before equalisation.
        upper_percentile: likewise, white: a vessel or a remnant of the scalp must not set the scale.
        equalisation_clip: limit of the adaptive equalisation's contrast, the share of a tile's voxels that one grey
            level may hold; 1 does not limit it.
        equalisation_tiles: tiles of the frame along x and y.
    """

    registers: ClassVar[bool] = True
    depends_on_margin: ClassVar[bool] = False
    kind: Literal["radiosurgery"]
    ct_level_hu: float = 40.0
    ct_width_hu: float = Field(80.0, gt=0)
    lower_percentile: float = Field(0.1, ge=0, lt=100)
    upper_percentile: float = Field(99.9, gt=0, le=100)
    equalisation_clip: float = Field(0.01, gt=0, le=1)
    equalisation_tiles: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] = (8, 8)

    @property
    def scan_window_hu(self) -> tuple[float, float]:
        """Lower and upper end of the CT's window, in Hounsfield units."""
        return self.ct_level_hu - self.ct_width_hu / 2, self.ct_level_hu + self.ct_width_hu / 2


class RegistrationPlan(Section):
    """Rigid registration of the CT to the MR by Mattes' mutual information (`metseg.prepare.registration`).

    Attributes:
        window_hu: the CT is clipped to it: air and metal would take most of the histogram.
        bins: of the joint histogram, along each axis.
        grids_mm: voxel sides of the pyramid, coarse to fine.
        start_degrees: rotations that the search begins with, both ways about each axis, beside none.
        sample_share: of the voxels of the finest grid.
        sampling_seed: of their choice.
        max_iterations: of each descent.
        smallest_head_ml: volume of head that a CT shows at least.
        smallest_overlap: share of the MR's head that must lie inside the CT's field of view.
        smallest_gain: by how much, relatively, the mutual information inside the skull must exceed its mean after
            shifts of `check_shift_mm`: another patient's brain has its ventricles and sulci elsewhere.
        check_shift_mm: of that comparison.
        check_grid_mm: voxel side of that comparison; two voxels next to bone are left out of it.
        identity_mm: where both files state one grid, a transform that moves the head by less on average is the
            identity.
    """

    window_hu: tuple[float, float] = (-100.0, 300.0)
    bins: int = Field(48, ge=8)
    grids_mm: tuple[Annotated[float, Field(gt=0)], ...] = Field((6.0, 3.0), min_length=1)
    start_degrees: float = Field(8.0, ge=0)
    sample_share: float = Field(0.5, gt=0, le=1)
    sampling_seed: int = Field(2019, ge=1)
    max_iterations: int = Field(60, ge=1)
    smallest_head_ml: float = Field(500.0, ge=0)
    smallest_overlap: float = Field(0.5, gt=0, le=1)
    smallest_gain: float = Field(3.0, ge=0)
    check_shift_mm: float = Field(8.0, gt=0)
    check_grid_mm: float = Field(3.0, gt=0)
    identity_mm: float = Field(1.0, ge=0)
