"""Which recipe a run has: a run goes on with the one that it began with, and is known by its content."""

from pathlib import Path

from metseg.errors import UsageError
from metseg.plan.document import YamlFileError, content_sha256, read_yaml
from training.recipe import HINT, Recipe, load_recipe
from training.runs.files import RECIPE_FILE

SAME_RECIPE_HINT = "Continue it with its own recipe.yaml, or train into another folder."


def identify_recipe(recipe: Recipe, run: Path) -> str:
    """Hash by which a run's checkpoints know its recipe.

    It is the hash of recipe.yaml as it was written. Keys that recipes have got since, with their defaults, do not
    change it: an older run goes on.

    Args:
        recipe: that the run has, or begins with.
        run: its folder; a folder without recipe.yaml begins.

    Raises:
        UsageError: the folder's recipe is another one, or can't be read.
    """
    if not (run / RECIPE_FILE).is_file():
        return content_sha256(recipe.model_dump(mode="json"))
    if load_recipe(str(run / RECIPE_FILE)) != recipe:
        raise UsageError(f"run {run}: was begun with another recipe than {recipe.name}", hint=SAME_RECIPE_HINT)
    return hash_written_recipe(run)


def hash_written_recipe(run: Path) -> str:
    """Hash of the content of a run's recipe.yaml, independent of how it is laid out.

    Raises:
        UsageError: it can't be read.
    """
    try:
        return content_sha256(read_yaml(run / RECIPE_FILE))
    except YamlFileError as error:
        raise UsageError(f"recipe {run / RECIPE_FILE}: {error}", hint=HINT) from error
