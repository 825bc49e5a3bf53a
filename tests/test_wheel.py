"""The wheel is whole: it runs from an empty folder, outside a clone."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow

QUICK = (
    "data.train=64",
    "data.validation=16",
    "data.test=20",
    "budget.shots=220",
    "probes.noise_repeats=4",
    "surrogate.fits_per_step=1",
    "reference.oracle=false",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    python(*build, str(ROOT))
    (path,) = folder.glob("labctl-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """Install the wheel alone; what it needs is in this environment."""
    folder = wheel.parent / "site"
    pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    python(*pip, "--disable-pip-version-check", "--target", str(folder), str(wheel))
    return folder


def python(*words: str, site: Path | None = None, cwd: Path | None = None) -> str:
    environment = dict(os.environ)
    environment.pop("LABCTL_BENCH", None)
    if site is not None:
        environment["PYTHONPATH"] = str(site)
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, *words],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_both_packages_and_every_shipped_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for folder in ("protocols", "calibrations"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file():
                inside = path.relative_to(ROOT).as_posix()
                assert f"labctl/shipped/{inside}" in names
    for package in ("labctl", "drivers"):
        assert f"{package}/py.typed" in names
        for path in (ROOT / package).rglob("*.py"):
            assert path.relative_to(ROOT).as_posix() in names
    assert "labctl/report/templates/page.html" in names
    assert "labctl/live/templates/page.js" in names
    for path in (ROOT / "labctl" / "optics" / "fused").glob("*.[ch]pp"):
        assert path.relative_to(ROOT).as_posix() in names
    assert not any(name.startswith(("tests/", "docs/")) for name in names)


# One process for all commands: that it begins is what takes long.
IN_TURN = """
import contextlib, io, json, os, sys
import drivers, labctl
from labctl.cli import main
done = []
for words in json.loads(sys.argv[1]):
    sys.argv, said, code = ["labctl", *words], io.StringIO(), None
    with contextlib.redirect_stdout(said):
        try:
            main()
        except SystemExit as end:
            code = end.code
    done.append([code, said.getvalue(), os.listdir()])
print(json.dumps([labctl.__file__, drivers.__file__, done]))
"""
NAMES = ("sim", "sim-small", "sim-ideal", "quickstart", "tasks/yin-yang")


def test_the_quickstart_runs_from_an_empty_folder_where_shipped_files_have_names(
    installed: Path, tmp_path: Path
) -> None:
    command = ["run", "quickstart.yaml", "--json"]
    sets = ["--bench", "sim-small"]
    sets += [word for change in QUICK for word in ("--set", change)]
    commands = [["validate", *NAMES], [*command, "--dry-run"], [*command, *sets]]
    out = python("-c", IN_TURN, json.dumps(commands), site=installed, cwd=tmp_path)
    ours, theirs, (valid, dry, run) = json.loads(out)
    assert all(Path(path).is_relative_to(installed) for path in (ours, theirs))

    assert (valid[0], len(valid[1].splitlines())) == (0, len(NAMES))
    assert dry[1].splitlines()[0] == "bench: sim (named by the protocol), SIMULATED"
    assert (dry[0], dry[2]) == (0, [])
    content = json.loads(run[1].splitlines()[-1])
    assert (run[0], content["status"]) == (0, "complete")
    record = tmp_path / content["record"]
    assert record.parent == tmp_path / "records"
    assert record.is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="a script there is an .exe")
def test_the_console_script_is_installed(installed: Path) -> None:
    script = (installed / "bin" / "labctl").read_text(encoding="utf-8")
    assert "from labctl.cli import main" in script


def test_an_editable_install_hides_no_package(tmp_path: Path) -> None:
    """A folder of data named like a package would be taken for it."""
    build = (
        "import os, sys; from hatchling.build import build_editable; "
        "os.chdir(sys.argv[1]); print(build_editable(sys.argv[2]))"
    )
    name = python("-c", build, str(ROOT), str(tmp_path)).split()[-1]
    with zipfile.ZipFile(tmp_path / name) as archive:
        tops = {path.split("/")[0] for path in archive.namelist()}
    assert not tops & {"labctl", "drivers", "protocols", "calibrations"}
