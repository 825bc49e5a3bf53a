"""Every error is on the page, has its exit code, and says what to do."""

import inspect
import re

import pytest

from labctl import errors
from labctl.errors import (
    BudgetError,
    DeviceError,
    DeviceTimeoutError,
    Fault,
    FrameError,
    InputError,
    LabctlError,
    OutcomeError,
    OutOfRangeError,
    ProtocolError,
    RecordError,
    SafetyError,
    vendor_errors,
)

BRANCHES = {
    InputError: 2,
    DeviceError: 3,
    SafetyError: 4,
    RecordError: 5,
    OutcomeError: 6,
}


def all_of(kind: type[LabctlError]) -> list[type[LabctlError]]:
    return [kind, *(each for child in kind.__subclasses__() for each in all_of(child))]


def test_the_tree_names_every_error_and_no_other() -> None:
    drawn = set(re.findall(r"\b\w+Error\b", inspect.getdoc(errors) or ""))
    made = {
        name
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, LabctlError)
    }
    assert drawn == made


@pytest.mark.parametrize(("branch", "code"), BRANCHES.items())
def test_a_branch_has_one_exit_code(branch: type[LabctlError], code: int) -> None:
    mine = [kind for kind in all_of(branch) if kind.__module__ == errors.__name__]
    assert {kind.exit_code for kind in mine} == {code}


def test_messages_say_where_what_and_what_was_expected() -> None:
    fault = Fault("p.yaml", 14, 3, "steps.0.rads", "is not known")
    assert (
        str(ProtocolError([fault, fault])).splitlines()
        == ["p.yaml line 14 column 3: steps.0.rads: is not known"] * 2
    )
    range_error = OutOfRangeError("laser", "power_mw", 11, low=0, high=10)
    assert "laser: set: power_mw=11, expected 0 to 10 (device)" in str(range_error)
    budget = BudgetError("probe", 3, 2, 10)
    assert "probe=3 shots, expected at most 2" in str(budget)
    assert (budget.wanted, budget.left) == (3, 2)


def test_a_rejected_frame_keeps_its_class_and_what_was_exposed() -> None:
    error = FrameError("camera", "gap", "2 missing")
    assert (error.kind, error.exposed) == ("gap", None)
    assert str(error) == "camera: frame gap: 2 missing"
    assert FrameError("camera", "gap", "2 missing", exposed=7).exposed == 7
    assert isinstance(DeviceTimeoutError("meter", "read", "silent"), DeviceError)


def test_whatever_a_vendor_raises_is_of_the_device() -> None:
    match = r"slm: write: KeyError: 'lut'\. Look at the device and its software"
    wrong = KeyError("lut")
    with (
        pytest.raises(DeviceError, match=match) as caught,
        vendor_errors("slm", "write"),
    ):
        raise wrong
    assert caught.value.__cause__ is wrong
    ours = FrameError("camera", "gap", "2 missing")
    with pytest.raises(FrameError) as kept, vendor_errors("camera", "frame"):
        raise ours
    assert kept.value is ours
    with pytest.raises(KeyboardInterrupt), vendor_errors("slm", "write"):
        raise KeyboardInterrupt
