"""What a bench file says of calibrations is judged at its lines, nothing open."""

from pathlib import Path

import pytest

from labctl import bench
from labctl.calibrate.section import faults
from labctl.errors import ProtocolError
from labctl.run.validate import validate

SIM = Path(__file__).parents[3] / "calibrations" / "sim" / "bench.yaml"
DRAWING = """
drawing: {matrix_px: [[64.0, 0.0], [0.0, 64.0]], offset_px: [32.0, 32.0]}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bench.yaml"


def told(path: Path, section: str) -> list[tuple[str, int, int, str]]:
    """Key, line of the section, column and text of every fault of a bench file."""
    text = SIM.read_text(encoding="utf-8")
    path.write_text(f"{text}calibrate:\n{section}\n", encoding="utf-8")
    first = text.count("\n") + 1
    return [
        (fault.key, (fault.line or 0) - first, fault.column or 0, fault.text)
        for fault in validate([str(path)], judge=faults).faults
    ]


@pytest.mark.parametrize(
    ("section", "key", "column", "said"),
    [
        (
            "  limits: {mapping: {residual_px: -1}}",
            "limits.mapping.residual_px",
            35,
            "got -1, expected a number above 0.",
        ),
        (
            "  limits: {settle: {error_percent: 0}}",
            "limits.settle.error_percent",
            36,
            "got 0, expected a number above 0.",
        ),
        (
            "  limits: {wavefront: {gain: 0.5}}",
            "limits.wavefront.gain",
            30,
            "got 0.5, expected at least 1: the figure is never below. Raise it, or",
        ),
        (
            '  lacks: {wavefront: ""}',
            "lacks.wavefront",
            22,
            'got "", expected a sentence.',
        ),
        (
            '  views: {image: " "}',
            "views.image",
            18,
            'got " ", expected a sentence.',
        ),
        (
            "  views: {sideways: x}",
            "views.sideways",
            11,
            "is not known, expected one of far_field, image, through_medium.",
        ),
        (
            "  views: {imagee: x}",
            "views.imagee",
            11,
            "is not known, expected one of far_field, image, through_medium. Did you "
            "mean image?",
        ),
        (
            "  phase_regions: [3, 2]",
            "phase_regions",
            18,
            "phase_regions=[3, 2], expected numbers that divide [64, 64], the rows",
        ),
        (
            "  region: [0, 0, 65, 64]",
            "region",
            11,
            "region=[0, 0, 65, 64], expected within 64 x 64 (the sensor). Move it",
        ),
        (
            "  region: [20, 20, 8, 8]",
            "region",
            11,
            "region=[20, 20, 8, 8], expected the outputs within: reservoir.region is "
            "[10, 10, 45, 45]. Make it larger, or say under calibrate.lacks why "
            "noise-floor and drift cannot be measured.",
        ),
        (
            "  region: [10, 10, 45, 44]",
            "region",
            11,
            "region=[10, 10, 45, 44], expected the outputs within",
        ),
    ],
)
def test_a_fault_is_told_at_its_line(
    path: Path, section: str, key: str, column: int, said: str
) -> None:
    ((at, line, where, text),) = told(path, section)
    assert (at, line, where) == (f"calibrate.{key}", 1, column)
    assert text.startswith(said)


@pytest.mark.parametrize(
    "section",
    [
        "  phase_regions: [4, 2]",
        "  region: [10, 10, 45, 45]",
        "  limits: {wavefront: {gain: 1.0}, mapping: {residual_px: 0.02}}",
        "  region: [20, 20, 8, 8]\n  lacks: {drift: too short, noise-floor: too dim}",
        # Where the outputs lie mapping tells.
        "  region: [20, 20, 8, 8]" + DRAWING,
    ],
)
def test_what_can_be_is_taken(path: Path, section: str) -> None:
    assert told(path, section) == []


def test_names_that_nobody_has_are_told_with_those_that_are_meant(path: Path) -> None:
    section = """\
  lacks: {wavefrontt: not here}
  valid_days: {settle: 3, mappin: 3}
  limits: {settle: {error: 5}, drft: {common: 1}}"""
    found = told(path, section)
    assert {key: line for key, line, _, _ in found} == {
        "calibrate.lacks.wavefrontt": 1,
        "calibrate.valid_days.mappin": 2,
        "calibrate.limits.drft": 3,
        "calibrate.limits.settle.error": 3,
    }
    texts = {key: text for key, _, _, text in found}
    assert "Did you mean mapping?" in texts["calibrate.valid_days.mappin"]
    assert "error_percent" in texts["calibrate.limits.settle.error"]


def test_names_are_judged_also_of_a_bench_that_cannot_be_made(path: Path) -> None:
    text = SIM.read_text(encoding="utf-8")
    section = "calibrate: {lacks: {drft: no}, phase_regions: [3, 3]}\n"
    path.write_text(text + section, encoding="utf-8")
    (fault,) = faults(bench.load(path), None)
    assert fault.key == "calibrate.lacks.drft"


def test_all_faults_of_a_file_are_told_at_once_and_in_order(path: Path) -> None:
    text = SIM.read_text(encoding="utf-8")
    section = "calibrate: {phase_regions: [3, 3], region: [20, 20, 8, 8]}\n"
    wide = text.replace("macropixels: [16, 16]", "macropixels: [65, 16]") + section
    path.write_text(wide, encoding="utf-8")
    checked = validate([str(path)], judge=faults)
    assert [fault.key for fault in checked.faults] == [
        "reservoir.macropixels",
        "calibrate.phase_regions",
        "calibrate.region",
    ]
    with pytest.raises(ProtocolError, match=r"phase_regions=\[3, 3\]"):
        checked.raise_faults()
