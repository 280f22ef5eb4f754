"""A recipe: all the science of one training run, readable in one YAML file.

A file may name another recipe, whose keys it changes:

    extends: mets_coarse
    network: {init_filters: 16}

Operational choices (folders, device, workers, how long) are command-line options.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, PlainSerializer, PlainValidator, ValidationError, model_validator

from metseg.errors import UsageError
from metseg.labels import BRATS_REGIONS, Regions
from metseg.plan.document import KIND, Section, YamlFileError, document_sha256, read_yaml, validate_document
from metseg.plan.networks import NetworkPlan, SegResNetPlan
from metseg.plan.plan import MemberPlan, Plan, TtaPlan
from metseg.systems import system_of_regions
from training.recipe_sections import (
    AugmentationRecipe,
    CropRecipe,
    DataRecipe,
    LossRecipe,
    LossRecipes,
    OptimizerRecipe,
    OptimizerRecipes,
    SplitRecipe,
    ValidationRecipe,
)
from training.systems import TrainingSystem, find_training_system, find_usual_regions

RECIPES_FOLDER = Path(__file__).parent / "recipes"

EXTENDS = "extends"
"""Key of a recipe's file: name of the recipe, or path of the file beside it, whose keys this one changes."""

HINT = "docs/training.md lists every key."

SIZE_RULES = ("min_wt_mm3", "min_netc_mm3", "min_snfh_mm3", "min_et_mm3", "min_disjoint_mm3")
"""Keys of a plan's size rules, which validation leaves out."""

VAE_MULTIPLE = 16
"""The VAE branch halves the deepest level once more: every side of its input divides by 2^4."""


def _find_regions(value: object) -> Regions:
    if isinstance(value, Regions):
        return value
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise ValueError("expected a list of names, such as [WT, TC, ET]")
    return system_of_regions(value).regions_named(value)


RecipeRegions = Annotated[Regions, PlainValidator(_find_regions), PlainSerializer(lambda regions: list(regions.names))]
"""In YAML the regions' names in channel order; the system that knows them has their labels."""


class Recipe(Section):
    """All the science of one training run.

    Attributes:
        name: of the member that it makes.
        description: for people.
        regions: what the network predicts, in channel order; those that are usual for the system by default.
        epochs: visits of every training case.
        batch_cases: cases of one optimiser step, over all ranks together; each gives `crops.per_case` crops.
        seed: random seed of the whole run: sample s of step t is a function of (seed, t, s) alone.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    description: str = ""
    regions: RecipeRegions
    data: DataRecipe = DataRecipe()
    split: SplitRecipe = SplitRecipe()
    crops: CropRecipe = CropRecipe()
    augmentation: AugmentationRecipe = AugmentationRecipe()
    network: NetworkPlan = SegResNetPlan()
    loss: LossRecipes = LossRecipe()
    optimizer: OptimizerRecipes = OptimizerRecipe()
    validation: ValidationRecipe = ValidationRecipe()
    epochs: int = Field(200, ge=1)
    batch_cases: int = Field(5, ge=1)
    seed: int = Field(2023, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _usual_regions(cls, content: object) -> object:
        if not isinstance(content, Mapping) or content.get("regions") is not None:
            return content
        try:
            intensity = DataRecipe.model_validate(content.get("data", {})).intensity
        except ValidationError:  # which the field itself reports
            return {**content, "regions": BRATS_REGIONS}
        return {**content, "regions": find_usual_regions(registers=intensity.registers)}

    @model_validator(mode="after")
    def _fits_the_vae(self) -> Self:
        if self.loss.vae_weight > 0 and any(side % VAE_MULTIPLE for side in self.crops.size):
            raise ValueError(f"with the VAE branch, crop sides divide by {VAE_MULTIPLE}, found {self.crops.size}")
        if self.loss.vae_weight > 0 and self.crops.other_sizes:
            raise ValueError("the VAE branch knows one crop size: loss.vae_weight 0, or no crops.other_sizes")
        return self

    @model_validator(mode="after")
    def _one_system(self) -> Self:
        """Sections of one system; and the crops' sides fit the network."""
        system = self.system
        fits = {
            "network": self.network.architecture in system.architectures,
            "loss": self.loss.kind in system.losses,
            "data.intensity": self.data.intensity.registers == system.system.is_registered,
        }
        others = sorted(section for section, belongs in fits.items() if not belongs)
        if others:
            raise ValueError(
                f"sections of two systems: {', '.join(others)} not of the {system.system.name} system, whose regions "
                f"are {', '.join(self.regions.names)}"
            )
        deepmedic = self.network.architecture == "deepmedic"
        if deepmedic != bool(self.crops.context):
            raise ValueError("crops.context is DeepMedic's: 42 with it, none without")
        if len(self.regions) > 1 and self.crops.lesion_region not in self.regions.names:
            raise ValueError(
                f"crops.lesion_region must be one of {', '.join(self.regions.names)}, found {self.crops.lesion_region}"
            )
        rare = getattr(self.loss, "dice_where_present", ())
        if not set(rare) <= set(self.regions.names):
            raise ValueError(
                f"loss.dice_where_present must name some of {', '.join(self.regions.names)}, found {', '.join(rare)}"
            )
        self.make_validation_plan()  # what it refuses is refused now
        return self

    @property
    def system(self) -> TrainingSystem:
        """What training knows of the system whose regions the network predicts."""
        return find_training_system(self.regions)

    @property
    def lesion_channel(self) -> int:
        """Channel of the region whose components crops are centred on."""
        return self.regions.names.index(self.crops.lesion_region) if len(self.regions) > 1 else 0

    @property
    def member(self) -> MemberPlan:
        """The network's entry in a plan, before there are weights to hash."""
        return MemberPlan(
            name=self.name,
            weights=f"{self.name}.safetensors",
            sha256="0" * 64,
            channels=self.data.channels,
            optional=self.data.optional,
            regions=self.regions.names,
            network=self.network,
        )

    def make_validation_plan(self) -> Plan:
        """Makes the plan by which a run's network segments its validation cases: one pass, no rules."""
        rules = dict.fromkeys(SIZE_RULES, 0)
        return Plan(
            name="validation",
            regions=self.regions,
            spacing_mm=self.data.spacing_mm,
            frame=self.data.frame,
            intensity=self.data.intensity,
            registration=self.data.registration,
            window=self.validation.window,
            tta=TtaPlan(variant="none"),
            threshold=self.validation.threshold,
            postprocess=rules,
            members=(self.member,),
        )

    @property
    def sha256(self) -> str:
        """Hash of what the recipe states; see `metseg.plan.document.document_sha256`."""
        return document_sha256(self)


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with the project, sorted."""
    return tuple(sorted(path.stem for path in RECIPES_FOLDER.glob("*.yaml")))


def load_recipe(name_or_path: str) -> Recipe:
    """Reads a recipe, with the keys of those that it extends.

    Args:
        name_or_path: one of `recipe_names()`, or the path of a YAML file.

    Raises:
        UsageError: no such recipe, it extends itself, or it breaks the schema; every broken key is named.
    """
    path = _find_file(name_or_path, Path())
    return validate_document(_read_resolved(path, ()), Recipe, what=f"recipe {path}", hint=HINT)


def merge_keys(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Joins two documents: a section's keys are joined key by key, everything else is replaced.

    A section that names another kind than the one below replaces it, because the kinds have other keys.

    Args:
        below: what holds where `above` says nothing.
        above: what is changed.
    """
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping) and value.get(KIND) in {None, old.get(KIND)}:
            merged[key] = {**old, **value}
        else:
            merged[key] = value
    return merged


def _find_file(name_or_path: str, folder: Path) -> Path:
    """A recipe's file: one of the project's, else a path, taken from `folder`."""
    named = RECIPES_FOLDER / f"{name_or_path}.yaml"
    path = (named if named.is_file() else folder / name_or_path).resolve()
    if not path.is_file():
        raise UsageError(
            f"recipe {name_or_path!r}: neither a file nor one of {', '.join(recipe_names())}",
            hint="Name one of these, or the path of a YAML file.",
        )
    return path


def _read_resolved(path: Path, above: tuple[Path, ...]) -> object:
    """A recipe's content on top of what it extends; `above` are the files that extend it."""
    if path in above:
        raise UsageError(f"recipe {above[-1]}: extends itself by way of {path}", hint="Leave one `extends` out.")
    try:
        content = read_yaml(path)
    except YamlFileError as error:
        raise UsageError(f"recipe {path}: {error}", hint=HINT) from error
    if not isinstance(content, Mapping) or EXTENDS not in content:
        return content
    own = {key: value for key, value in content.items() if key != EXTENDS}
    if not isinstance(content[EXTENDS], str):
        raise UsageError(f"recipe {path}: {EXTENDS} names one recipe, found {content[EXTENDS]!r:.80}", hint=HINT)
    below = _read_resolved(_find_file(content[EXTENDS], path.parent), (*above, path))
    return merge_keys(below, own) if isinstance(below, Mapping) else below
