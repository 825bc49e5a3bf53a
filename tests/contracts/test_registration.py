from collections.abc import Mapping
from importlib.metadata import distribution


def test_every_registered_driver_is_under_contract(rows: Mapping[str, object]) -> None:
    points = distribution("labctl").entry_points.select(group="labctl.drivers")
    assert {point.name for point in points} == set(rows)
