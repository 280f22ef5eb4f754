"""scripts/audit-requirements with a stand-in for pip-audit: what it looks up, says and returns."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts/audit-requirements"

STAND_IN = """#!{python}
import json, re, sys
text = open(sys.argv[sys.argv.index("--requirement") + 1]).read()
known = json.loads({known!r})
def answer(name, version):
    if f"{{name}}=={{version}}" not in known:
        return {{"name": name, "skip_reason": "not found"}}
    return {{"name": name, "version": version, "vulns": known[f"{{name}}=={{version}}"]}}
print(json.dumps({{"dependencies": [answer(*pin) for pin in re.findall(r"^([a-z]+)==([^ ]+)", text, re.M)]}}))
"""

PINS = "numpy==2.2.0 --hash=sha256:00\ntorch==2.13.0+cpu --hash=sha256:01\n"
FOUND = {"id": "CVE-1", "fix_versions": ["2.14.0"]}


@pytest.mark.parametrize(
    ("known", "code", "lines"),
    [
        ({"numpy==2.2.0": [], "torch==2.13.0": []}, 0, ["2 packages audited, 0 vulnerable, 0 not looked up"]),
        (
            {"numpy==2.2.0": [], "torch==2.13.0": [FOUND]},
            1,
            ["torch 2.13.0: CVE-1, fixed in 2.14.0", "2 packages audited, 1 vulnerable, 0 not looked up"],
        ),
        (
            {"torch==2.13.0": []},
            1,
            ["1 packages audited, 0 vulnerable, 1 not looked up", "not found on PyPI: numpy"],
        ),
        (
            {},
            1,
            [
                "0 packages audited, 0 vulnerable, 2 not looked up",
                "nothing was audited: PyPI's pages on vulnerabilities can't be read from here",
            ],
        ),
    ],
)
def test_what_it_says_is_true(tmp_path, known, code, lines):
    program = tmp_path / "pip-audit"
    program.write_text(STAND_IN.format(python=sys.executable, known=json.dumps(known)))
    program.chmod(0o755)
    (tmp_path / "requirements.txt").write_text(PINS)
    command = [sys.executable, SCRIPT, program, tmp_path / "requirements.txt"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == code, ended.stderr
    assert ended.stdout.splitlines() == ["torch 2.13.0+cpu is looked up as torch 2.13.0", *lines]


def test_a_program_that_fails_is_no_clean_audit(tmp_path):
    (tmp_path / "requirements.txt").write_text(PINS)
    command = [sys.executable, SCRIPT, "/bin/false", tmp_path / "requirements.txt"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "pip-audit failed" in ended.stderr
