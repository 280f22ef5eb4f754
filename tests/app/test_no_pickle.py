"""The run time never unpickles: a pickle executes what its author wrote. An image test plants one among weights."""

import ast
from pathlib import Path

import metseg

FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {
    "torch.load",
    "np.load",
    "numpy.load",
    "torch.hub.load",
    "eval",
    "exec",
    "yaml.load",
    "yaml.unsafe_load",
}


def offences(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = {alias.name.split(".")[0] for alias in node.names} & FORBIDDEN_MODULES
        elif isinstance(node, ast.ImportFrom):
            found = {(node.module or "").split(".")[0]} & FORBIDDEN_MODULES
        elif isinstance(node, ast.Call):
            found = {ast.unparse(node.func)} & FORBIDDEN_CALLS
        else:
            continue
        for name in found:
            yield f"{path.name}:{node.lineno}: {name}"


def test_the_application_neither_unpickles_nor_evaluates():
    sources = sorted(Path(metseg.__file__).parent.rglob("*.py"))
    assert len(sources) > 20
    assert [offence for path in sources for offence in offences(path)] == []


def test_the_search_finds_what_it_looks_for(tmp_path):
    (tmp_path / "bad.py").write_text("import pickle\nfrom joblib import load\nimport torch\ntorch.load('weights.pt')\n")
    assert len(list(offences(tmp_path / "bad.py"))) == 3
