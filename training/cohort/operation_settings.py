"""Distributions of operated brains."""

from pydantic import Field

from metseg.plan.document import Section
from training.cohort.ranges import Probability, Range


class OperationSettings(Section):
    """A resection cavity with what surrounds it. "Definition" is that of the labels (de Verdier et al. 2024)."""

    probability: Probability = Field(0.0, description="share of operated cases; none unless asked for")
    volume_ml: Range = Field((1.0, 60.0), description="log-uniform; specified")
    depth: Range = Field((0.25, 1.1), description="of the centre under the surface, in radii; chosen")
    elongation: Range = Field((0.75, 1.5), description="length towards the centre over width; chosen")
    irregularity: Range = Field((0.08, 0.25), description="std of the relative distance; chosen")
    cerebellum_share: Probability = Field(0.15, description="as of metastases, Delattre et al. 1988")
    suppressed_probability: Probability = Field(0.5, description="fluid that is dark on t2f as CSF is; chosen")
    protein_t2f: Range = Field((0.35, 1.4), description="t2f of other fluid over the brighter of GM, WM; chosen")
    blood_probability: Probability = Field(0.3, description="cavities with blood; usual in the first weeks")
    blood_share: Range = Field((0.3, 1.0), description="of such a cavity that is blood; chosen")
    blood_t1: Range = Field((0.9, 1.8), description="t1n, t1c of blood over WM: methaemoglobin is bright")
    level_probability: Probability = Field(0.3, description="of such cavities where blood has settled at the back")
    rim_probability: Probability = Field(0.6, description="cavities with a thin enhancing wall; chosen")
    rim_mm: Range = Field((0.7, 2.0), description="thickness; definition: thin, linear enhancement is not ET")
    rim_enhancement: Range = Field((1.1, 2.1), description="t1c over WM; chosen")
    haemosiderin_probability: Probability = Field(0.3, description="walls dark on t2w, t2f; chosen")
    oedema_probability: Probability = Field(0.5, description="else gliosis; both are SNFH by definition")
    oedema_mm: Range = Field((5.0, 25.0), description="reach in white matter; chosen")
    gliosis_mm: Range = Field((1.0, 6.0), description="reach in white matter; chosen")
    residual_probability: Probability = Field(0.55, description="tumour left or grown again at the wall; chosen")
    residual_count: tuple[int, int] = Field((1, 3), description="nodules; chosen")
    residual_diameter_mm: Range = Field((4.0, 24.0), description="definition: ET is thick or nodular; log-uniform")
    dura_probability: Probability = Field(0.7, description="enhancing dura over the cavity, kept by stripping; chosen")
    dura_mm: Range = Field((0.8, 2.5), description="thickness; chosen")
    dura_level: Range = Field((1.2, 3.0), description="t1c over WM; chosen")
    sunken_mm: Range = Field((0.0, 4.0), description="how far the surface sinks in under the bone flap; chosen")
    edge_probability: Probability = Field(0.5, description="remnants at the bone defect's edge; chosen")
    edge_level: Range = Field((0.2, 1.8), description="over the brighter of GM, WM; chosen")
