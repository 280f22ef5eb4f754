"""What `scripts/count-structure` counts, on code made up for it."""

import ast
import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts/count-structure"


@pytest.fixture(scope="module")
def counting():
    pytest.importorskip("grimp")
    loader = SourceFileLoader("count_structure", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    sys.modules[loader.name] = module  # dataclasses look there
    loader.exec_module(module)
    yield module
    del sys.modules[loader.name]


@pytest.mark.parametrize(
    "code",
    [
        "x = a if system == 'brats' else b",
        "x = system.name in {'brats', 'other'}",
        "x = system is not BRATS",
        "x = plan.system is systems.RADIOSURGERY",
        "x = isinstance(plan, RadiosurgeryIntensityPlan)",
        "x = isinstance(plan, (IntensityPlan, plans.MetastasisPlan))",
        "x = {'brats': 1, 'radiosurgery': 2}[name]",
        "x = case.scans['ct']",
        "x = WORDS.get('radiosurgery')",
        "x = getattr(settings, 'ct')",
        "x = [item for item in items if item.is_radiosurgery]",
        "if not recipe.is_radiosurgery: pass",
        "x = settings.ct is None",
        "match name:\n case 'brats': pass",
        "match plan:\n case RadiosurgeryPlan(): pass",
        "match plan:\n case x if x.has_ct: pass",
    ],
)
def test_a_line_that_asks_which_system_it_is_counts(counting, code):
    assert len(set(counting.asking_lines(ast.parse(code)))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "name: Literal['brats', 'radiosurgery'] = 'brats'",
        "kind: Annotated[RadiosurgeryPlan, Tag('radiosurgery')]",
        "load_settings(system='radiosurgery')",
        "x = BRATS.regions",
        "x = modality in OWN_GRID",
        "x = label == METASTASIS",
        "x = settings.ct.spacing_mm",
        "x = system.has_parts",
    ],
)
def test_a_line_that_states_or_reads_a_declaration_does_not(counting, code):
    assert not list(counting.asking_lines(ast.parse(code)))


def test_the_longest_chain_takes_a_circle_as_one_room(counting):
    arrows = {("door", "hall"), ("hall", "stairs"), ("stairs", "hall"), ("stairs", "cellar"), ("door", "cellar")}
    rooms = ("cellar", "door", "hall", "stairs")
    circles = counting.find_circles(rooms, arrows)
    assert circles == (("hall", "stairs"),)
    assert counting.longest_chain(rooms, arrows, circles) == ("door", "hall+stairs", "cellar")


@pytest.mark.parametrize(
    ("arrow", "allowed"),
    [
        (("upper", "lower"), True),
        (("lower", "upper"), False),
        (("one", "other"), False),
        (("left", "right"), True),
        (("upper", "unknown"), False),
    ],
)
def test_the_contract_says_which_arrows_go_down(counting, tmp_path, arrow, allowed):
    (tmp_path / "pyproject.toml").write_text(
        "[[tool.importlinter.contracts]]\ntype = 'layers'\ncontainers = ['metseg']\n"
        "layers = ['upper', 'one | other', 'left : right', 'lower']\n"
    )
    levels = counting.declared_levels(tmp_path)
    assert counting.is_downward(arrow, levels) is allowed
