"""Names of the files in a run's folder that other commands read too (see `training.train.run`)."""

from typing import Final

RECIPE_FILE: Final = "recipe.yaml"
RUN_FILE: Final = "run.json"
SPLIT_FILE: Final = "split.json"
