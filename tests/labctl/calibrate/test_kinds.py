"""The list of kinds is in order, and each can be described."""

from labctl.calibrate.kinds import KINDS


def test_a_kind_comes_after_those_that_it_needs() -> None:
    names = [kind.name for kind in KINDS]
    assert len(names) == len(set(names))
    for at, kind in enumerate(KINDS):
        assert set(kind.needs) <= set(names[:at]), kind.name


def test_every_kind_has_limits_and_belongs_to_devices() -> None:
    for kind in KINDS:
        assert kind.limits, kind.name
        assert kind.of, kind.name
        assert kind.valid_days > 0
