import pytest
import yaml

from metseg.errors import UsageError
from metseg.plan.plan import MemberPlan, Plan, load_plan

MEMBER = {"name": "a", "weights": "a.safetensors", "sha256": "0" * 64}


def write(tmp_path, **content):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({"name": "p", "members": [MEMBER]} | content))
    return path


def test_defaults_are_the_papers(tmp_path):
    plan = load_plan(write(tmp_path))
    assert plan.window.size == (192, 192, 32)
    assert plan.window.overlap == 0.75
    assert plan.tta.variant == "aurora"
    assert plan.fusion.method == "simple"
    assert plan.threshold == 0.5
    assert (plan.intensity.lower_percentile, plan.intensity.upper_percentile) == (0.1, 99.9)
    rules = plan.postprocess
    assert (rules.min_wt_mm3, rules.min_netc_mm3, rules.min_snfh_mm3, rules.min_et_mm3) == (25, 20, 20, 10)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
        ({"threshold": 1.5}, "threshold: Input should be less than 1"),
        ({"window": {"size": [190, 192, 32]}}, "multiples of 8"),
        ({"fusion": {"method": "best"}}, "fusion.method"),
        ({"members": []}, "members"),
        ({"members": [MEMBER, MEMBER]}, "different names"),
        ({"members": [MEMBER | {"weights": "../a.safetensors"}]}, "members.0.weights"),
        ({"frame": [96, 96], "members": [MEMBER | {"spacing_mm": 2.0}]}, "no member a spacing_mm of its own"),
        ({"members": [MEMBER | {"spacing_mm": 0}]}, "members.0.spacing_mm"),
        ({"members": [MEMBER | {"regions": ["ET", "TC", "WT"]}]}, "regions of member 'a'"),
        ({"members": [MEMBER | {"regions": [["WT"]]}]}, "regions of member 'a'"),
    ],
)
def test_a_broken_plan_names_the_key(tmp_path, content, message):
    with pytest.raises(UsageError, match=message.replace(".", r"\.")):
        load_plan(write(tmp_path, **content))


@pytest.mark.parametrize("text", ["[1, 2", "- a\n- b", "", "!!python/object/apply:os.system ['true']"])
def test_what_is_no_plan_is_a_usage_error(tmp_path, text):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"plan\.yaml"):
        load_plan(path)


def test_a_missing_plan_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="can't be read"):
        load_plan(tmp_path / "none.yaml")


def test_the_hash_ignores_layout_and_sees_content(tmp_path):
    path = write(tmp_path)
    first = load_plan(path).sha256
    path.write_text("# a comment\n" + path.read_text())
    assert load_plan(path).sha256 == first
    path.write_text(path.read_text() + "threshold: 0.4\n")
    assert load_plan(path).sha256 != first


def test_modalities_follow_the_channels():
    sub = MemberPlan.model_validate(MEMBER | {"channels": ("t1n", "t1c", "t2f", "sub")})
    full = MemberPlan.model_validate(MEMBER | {"name": "b"})
    assert sub.modalities == {"t1n", "t1c", "t2f"}
    plan = Plan(name="p", members=(sub, full))
    assert plan.required_modalities == {"t1n", "t1c", "t2f"}
    assert plan.modalities == {"t1n", "t1c", "t2w", "t2f"}


def test_the_margin_matters_where_percentiles_are_over_the_volume(tmp_path):
    plain = load_plan(write(tmp_path))
    assert plain.intensity.percentiles_over == "volume"
    assert plain.expected_brain_share == plain.system.brain_share
    assert load_plan(write(tmp_path, brain_share=0.3)).expected_brain_share == 0.3
    over_brain = load_plan(write(tmp_path, intensity={"percentiles_over": "brain"}, brain_share=0.3))
    assert over_brain.expected_brain_share is None
    assert over_brain.sha256 != plain.sha256


def test_keys_that_came_later_leave_the_hash_of_older_plans_as_it_was(tmp_path):
    plain = load_plan(write(tmp_path)).sha256
    later = {"intensity": {"percentiles_over": "volume"}, "brain_share": None}
    later["postprocess"] = {"min_further_et_share": None}
    assert load_plan(write(tmp_path, **later)).sha256 == plain
    assert load_plan(write(tmp_path, postprocess={"min_further_et_share": 0.05})).sha256 != plain
