from pathlib import Path

import pytest
from ruamel.yaml import YAML

from drivers.sim import camera, laser, meter, shutter, slm
from drivers.sim.faults import Fault, parse_faults

KINDS = ("dropped", "late")
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"kind": "burnt", "at_shot": 1}, r"faults\.0\.kind='burnt', expected one of"),
        ({"kind": "late"}, "expected one of at_shot, at_s, probability"),
        (
            {"kind": "late", "at_shot": 1, "probability": 0.1},
            "expected one of at_shot, at_s, probability",
        ),
        ({"kind": "late", "at_s": 1.0}, "expected duration_s with at_s"),
        ({"kind": "late", "at_shot": 1.5}, "at_shot=1.5, expected a whole number"),
        ({"kind": "late", "probability": 2}, "probability=2, expected 0 to 1"),
        ({"kind": "late", "probability": float("nan")}, "probability=nan"),
        ({"kind": "late", "at_shot": 1, "wait": 2}, "wait is not known"),
    ],
)
def test_refuses_what_is_no_fault(entry: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        parse_faults([entry], KINDS, "camera")


def test_an_entry_keeps_what_it_says() -> None:
    entry = {"kind": "late", "at_shot": 4, "delay_s": 2.5}
    (fault,) = parse_faults([entry], KINDS, "camera")
    assert fault == Fault("late", at_shot=4, delay_s=2.5)


def test_the_page_on_faults_names_every_kind_and_its_example_is_accepted() -> None:
    page = (ROOT / "docs" / "how-to" / "rehearse-faults.md").read_text("utf-8")
    example = YAML(typ="safe").load(page.split("```yaml")[1].split("```")[0])
    known = {
        "camera": camera.KINDS,
        "slm": slm.KINDS,
        "meter": meter.KINDS,
        "thermometer": meter.KINDS,
        "shutter": shutter.KINDS,
    }
    for role, broken in example["devices"].items():
        faults = broken["options"].get("faults", [])
        if role == "laser":
            assert all(laser.LaserFault(**fault) for fault in faults)
        else:
            assert len(parse_faults(faults, known[role], role)) == len(faults)
    for role, names in (known | {"laser": tuple(laser.KINDS)}).items():
        if role == "thermometer":  # the driver of a meter, told there
            continue
        rows = "".join(line for line in page.splitlines() if f"| {role} |" in line)
        assert [name for name in names if f"`{name}`" not in rows] == []
