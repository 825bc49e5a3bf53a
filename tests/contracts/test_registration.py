import re
from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "instruments.md"


def test_every_registered_driver_is_under_contract_or_said_to_be_unproved(
    rows: Mapping[str, object], unproved: set[str]
) -> None:
    points = distribution("labctl").entry_points.select(group="labctl.drivers")
    assert {point.name for point in points} == set(rows) | unproved
    # Models stand in for all of them but one, whose library is not ours to install.
    assert unproved - set(rows) == {"pylablib.camera"}


def test_the_page_of_instruments_says_what_each_was_proved_against(
    rows: Mapping[str, object], unproved: set[str]
) -> None:
    said = dict(
        re.findall(
            r"^\| `([a-z0-9_-]+\.[a-z]+)` \|.*\| ([^|]+) \|$",
            PAGE.read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    )
    real = {key for key in {*rows, *unproved} if not key.startswith("sim.")}
    assert set(said) == real
    marked = {key for key, proof in said.items() if "unproved on a peer" in proof}
    assert marked == unproved


def test_readme_names_every_driver_and_marks_the_same_ones() -> None:
    told: dict[str, bool] = {}
    text = (PAGE.parents[2] / "README.md").read_text(encoding="utf-8")
    _, _, rest = text.partition("\n## Instruments\n")
    for row in re.findall(r"^\| (`.*)$", rest.partition("\n## ")[0], re.MULTILINE):
        names, _, proof = row.strip("| ").split(" | ")
        told |= dict.fromkeys(
            re.findall("`(.*?)`", names), proof.startswith("unproved")
        )
    said = re.findall(
        r"^\| `([a-z0-9_-]+\.[a-z]+)` \|.*\| ([^|]+) \|$",
        PAGE.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert told == {key: "unproved on a peer" in proof for key, proof in said}
