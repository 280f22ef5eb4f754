"""How skull and scalp look in the sequences without contrast agent; `ct_settings.py` has t1c's."""

from pydantic import Field

from metseg.plan.document import Section
from training.cohort.ranges import Range


class HeadSettings(Section):
    """Levels around the brain, over white matter; CSF around the brain is as bright as within."""

    marrow_t1n: Range = Field((0.3, 0.8), description="the skull's middle; fatty marrow is bright on T1; chosen")
    marrow_t2w: Range = Field((0.4, 1.4), description="likewise, fast spin echo; chosen")
    marrow_t2f: Range = Field((0.3, 0.9), description="likewise; chosen")
    fat_t1n: Range = Field((1.0, 1.8), description="the scalp; fat is the brightest tissue on T1; chosen")
    fat_t2w: Range = Field((1.5, 4.0), description="likewise, bright on fast spin echo; chosen")
    fat_t2f: Range = Field((0.8, 2.0), description="likewise, with or without fat suppression; chosen")
