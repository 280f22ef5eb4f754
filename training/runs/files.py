"""Names of the files in a run's folder (`training.train.run` says what each holds)."""

from typing import Final

RECIPE_FILE: Final = "recipe.yaml"
RUN_FILE: Final = "run.json"
SPLIT_FILE: Final = "split.json"
METRICS_FILE: Final = "metrics.jsonl"

LAST: Final = "last.safetensors"
"""The newest checkpoint."""

BEST: Final = "best.safetensors"
"""The checkpoint with the best validation score."""
