"""The challenge's scores and cohort tables: build time only, never in the image.

From Python: `score_case`. From a shell: `python -m evaluation --help`.
"""

from evaluation.protocols import score_case

__all__ = ["score_case"]
