"""What is in the image, and what is not."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from image_support import run

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def config(engine, image):
    return engine.images.get(image).attrs["Config"]


def shell(engine, image, script):
    """Runs a shell script in the image as root, so that it can look everywhere."""
    ended = run(engine, image, ["-c", script], entrypoint="/bin/sh", user="0", cap_drop=None)
    assert ended.exit_code == 0, ended.log
    return ended.log


def test_configuration(config):
    environment = dict(entry.split("=", 1) for entry in config["Env"])
    assert not config["User"], "the caller decides"
    assert config["Healthcheck"] == {"Test": ["NONE"]}
    assert config["Entrypoint"][0].startswith("/"), "some callers lose the working directory"
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert environment["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    assert environment["METSEG_ON_ERROR"] == "blank"
    for name in ("HOME", "TORCHINDUCTOR_CACHE_DIR", "MPLCONFIGDIR", "XDG_CACHE_HOME"):
        assert environment[name].startswith("/tmp")
    assert environment["USER"]


def test_labels(config):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == version
    assert re.fullmatch(r"[0-9a-f]{40}(-modified)?", labels["org.opencontainers.image.revision"])


def test_weights_lie_below_the_code(engine, image):
    steps = [entry["CreatedBy"] for entry in engine.images.get(image).history()]  # newest first
    code = next(number for number, step in enumerate(steps) if "/opt/metseg/app" in step)
    weights = next(number for number, step in enumerate(steps) if "/opt/metseg/weights" in step)
    environment = next(number for number, step in enumerate(steps) if re.search(r"/opt/venv(\s|$)", step))
    assert code < weights < environment


def test_exactly_the_pinned_packages(engine, image):
    script = (
        '/opt/venv/bin/python -I -c "import importlib.metadata as m, json; '
        "print(json.dumps({d.name.lower().replace('_', '-'): d.version for d in m.distributions()}))\""
    )
    installed = json.loads(shell(engine, image, script))
    del installed["metseg"]
    pinned = dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", (ROOT / "requirements.txt").read_text(), flags=re.MULTILINE))
    flavour = "cpu" if installed["torch"].endswith("+cpu") else "cuda"
    torch = (ROOT / f"requirements-torch-{flavour}.txt").read_text()
    pinned |= dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", torch, flags=re.MULTILINE))
    unexpected = {name: version for name, version in installed.items() if pinned.get(name) != version}
    assert not unexpected
    assert "pip" not in installed


def test_torch_s_libraries_find_all_that_they_need(engine, image):
    """What the build takes out of CUDA's packages is missed by none; the driver comes from outside."""
    script = "for file in $(find /opt/venv -path '*/torch/lib/*.so*'); do ldd $file; done | grep 'not found'; true"
    missing = {line.split()[0] for line in shell(engine, image, script).splitlines()}
    assert missing <= {"libcuda.so.1"}


def test_nothing_is_writable_by_others(engine, image):
    found = shell(engine, image, "find / -xdev ! -type l -perm -0002 ! \\( -type d -perm -1000 \\) -print")
    assert found.split() == []


def test_nothing_changes_its_user(engine, image):
    """The base's setuid and setgid programs have lost those bits, and none has capabilities of its own."""
    assert shell(engine, image, "find / -xdev -type f -perm /6000 -print").split() == []
    program = (
        "import os; print([path for root, _, names in os.walk('/', followlinks=False) for path in "
        "(os.path.join(root, name) for name in names) if not root.startswith(('/proc', '/sys', '/dev')) "
        "and not os.path.islink(path) and 'security.capability' in os.listxattr(path)])"
    )
    assert shell(engine, image, f'/opt/venv/bin/python -Ic "{program}"').strip() == "[]"


def test_no_leftovers(engine, image):
    script = (
        "for place in /root/.cache /root/.config /build /etc/pip.conf /root/.pip; do "
        "  [ ! -e $place ] || echo $place; done; "
        "ls -A /tmp /var/lib/apt/lists /var/cache/apt/archives 2>/dev/null | grep -vE '^(/.*:|lock|partial|)$'; "
        "command -v cc gcc g++ make git; "
        "find /opt -name '*.whl' -o -name '*.a' -o -name '*.alt.so*' "
        "  -o \\( -name pip -o -name triton -o -name test_files -o -name tests \\) -type d; true"
    )
    assert shell(engine, image, script).split() == []


def test_no_secrets(engine, image, config):
    alone = r"(^|[^A-Za-z0-9+/]){}($|[^A-Za-z0-9+/=])"  # not in the middle of something encoded
    patterns = [
        "-----BEGIN [A-Z ]*PRIVATE KEY",
        alone.format("AKIA[0-9A-Z]{16}"),
        alone.format("gh[ps]_[A-Za-z0-9]{36}"),
    ]
    script = "grep -rIlE " + " ".join(f"-e '{pattern}'" for pattern in patterns) + " /opt /etc /root /usr/local; true"
    assert shell(engine, image, script).split() == []
    history = " ".join(entry["CreatedBy"] for entry in engine.images.get(image).history()) + " ".join(config["Env"])
    assert not re.search(r"(?i)(token|passw|secret|https?://)", history)


def test_help_and_info_answer_quickly_and_without_torch(engine, image):
    ended = run(engine, image, ["info"])
    assert ended.exit_code == 0, ended.log
    script = "/opt/venv/bin/python -IX importtime -m metseg --help 2>&1 | grep -cE '\\| +torch$'; true"
    assert shell(engine, image, script).split() == ["0"]
