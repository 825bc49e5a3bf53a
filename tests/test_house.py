"""What no linter says: the house is in order."""

import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import drivers
from labctl import document, registry
from labctl.calibrate import section
from labctl.comparison import run as runs
from labctl.errors import InputError
from labctl.run.validate import validate

ROOT = Path(__file__).parent.parent
# Import-time shells and pure data have no behaviour of their own to mirror.
NO_MIRROR = {"__init__", "__main__"}


def test_every_module_has_its_mirror() -> None:
    missing = []
    for package in ("labctl", "drivers"):
        for module in sorted((ROOT / package).rglob("*.py")):
            if module.stem in NO_MIRROR:
                continue
            inside = module.relative_to(ROOT)
            mirror = ROOT / "tests" / inside.parent / f"test_{module.stem}.py"
            if not mirror.exists():
                missing.append(str(inside))
    assert missing == []


def test_drivers_is_ours() -> None:
    assert drivers.__file__ is not None
    assert Path(drivers.__file__).parent == ROOT / "drivers"


def shipped(folder: str) -> list[str]:
    return [str(path) for path in (ROOT / folder).rglob("*.yaml")]


def test_every_shipped_comparison_is_valid() -> None:
    names = shipped("protocols/comparisons")
    assert len(names) > 10
    # As `labctl validate` does: each training of it.
    checked = validate(names, runs.check)
    assert [str(fault) for fault in checked.faults] == []


def test_every_other_shipped_file_is_valid() -> None:
    names = {*shipped("protocols"), *shipped("calibrations")}
    names -= {*shipped("protocols/comparisons")}
    assert len(names) > 10
    checked = validate(sorted(names), runs.check, section.faults)
    assert [str(fault) for fault in checked.faults] == []


def test_shipped_files_are_found_by_name_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert document.find("quickstart", "protocols").is_file()
    assert {"sim", "sim-small", "sim-ideal"} <= set(document.benches())


def test_no_code_among_calibrations_and_protocols() -> None:
    for folder in ("calibrations", "protocols"):
        kinds = {path.suffix for path in (ROOT / folder).rglob("*") if path.is_file()}
        assert kinds <= {".yaml", ".npy"}


def test_every_driver_loads() -> None:
    ours = [e for e in entry_points(group="labctl.drivers") if e.dist is not None]
    names = {entry.name for entry in ours}
    assert {"sim.slm", "sim.laser", "sim.camera"} <= names
    for entry in ours:
        if entry.value.startswith("drivers."):
            try:
                assert callable(registry.load(entry.name))
            except InputError as error:
                # A vendor's library that is not installed: an extra brings it.
                assert "pip install 'labctl[" in str(error)  # noqa: PT017 - not always


def test_decision_records_are_numbered_once_and_fit_a_page() -> None:
    folder = ROOT / "docs" / "explanations" / "decisions"
    records = sorted(folder.glob("*.md"))
    numbers = [record.name[:4] for record in records]
    assert len(numbers) == len(set(numbers)) > 0
    for record in records:
        text = record.read_text(encoding="utf-8")
        assert re.match(rf"# {record.name[:4]} ", text), record.name
        assert len(text.splitlines()) <= 60, record.name
        for part in ("Date:", "Status:", "Context", "Decision", "Consequences"):
            assert part in text, (record.name, part)


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        text = page.read_text(encoding="utf-8")
        broken += [
            f"{page.relative_to(ROOT)}: {target}"
            for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text)
            if "://" not in target and not (page.parent / target).exists()
        ]
    assert broken == []


def _imported_by(code: str) -> set[str]:
    listing = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", listing], check=True, capture_output=True, text=True
    )
    return {name.split(".")[0] for name in done.stdout.splitlines()}


HEAVY = {"torch", "h5py", "matplotlib", "sklearn", "scipy", "numpy"}


@pytest.mark.parametrize("module", ["labctl", "labctl.cli"])
def test_import_is_light(module: str) -> None:
    assert not HEAVY & _imported_by(f"import {module}")


def test_help_is_light() -> None:
    code = (
        "import contextlib, io, sys\n"
        "sys.argv = ['labctl', '--help']\n"
        "from labctl.cli import main\n"
        "with contextlib.suppress(SystemExit), "
        "contextlib.redirect_stdout(io.StringIO()):\n"
        "    main()"
    )
    assert not HEAVY & _imported_by(code)


def test_guard_is_light() -> None:
    heavy = {"torch", "h5py", "matplotlib", "sklearn", "pydantic", "ruamel"}
    lasers = {
        entry.value.partition(":")[0]
        for entry in entry_points(group="labctl.drivers")
        if entry.name.endswith(".laser") and entry.value.startswith("drivers.")
    }
    assert "drivers.laser.cobolt" in lasers
    code = f"import labctl.guard, {', '.join(sorted(lasers))}"
    assert not heavy & _imported_by(code)


def test_guard_and_a_simulated_laser_need_no_numpy() -> None:
    # A laser on a wire brings it all the same: pyvisa imports it.
    imported = _imported_by("import labctl.guard, drivers.sim.laser")
    assert "labctl" in imported
    assert not (HEAVY | {"pydantic", "ruamel", "pyvisa"}) & imported
