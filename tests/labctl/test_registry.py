from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from labctl import registry
from labctl.devices import SLM
from labctl.errors import InputError, MissingLibraryError, ProtocolError

Package = Callable[[str, str, Mapping[str, str]], Path]

SOURCE = """
from labctl.errors import Fault, ProtocolError

class Lamp:
    def __init__(self, *, name, colour, watts=1.0):
        if watts <= 0:
            raise ValueError(f"watts={watts}, expected more than 0")
        self.name = name

def anything(**options):
    return options

def keyed(*, watts):
    raise ProtocolError([Fault("", None, None, "watts", f"got {watts}")])

NUMBER = 7
"""


@pytest.fixture(autouse=True)
def acme(package: Package) -> None:
    package(
        "acme_lamp",
        SOURCE,
        {
            "acme.lamp": "acme_lamp:Lamp",
            "acme.any": "acme_lamp:anything",
            "acme.keyed": "acme_lamp:keyed",
            "acme.number": "acme_lamp:NUMBER",
            "acme.absent": "acme_lamp:Absent",
            "acme.sdk": "acme_sdk_that_is_absent.camera:Camera",
            "bolt.sdk": "acme_sdk_that_is_absent.camera:Camera",
            "acme_absent.sdk": "acme_absent.camera:Camera",
        },
    )


def test_a_package_outside_this_repository_is_installed_by_its_entry_point() -> None:
    assert registry.installed()["acme.lamp"].value == "acme_lamp:Lamp"
    lamp = registry.build(
        "acme.lamp", where="devices.lamp", arguments={"name": "a", "colour": "red"}
    )
    assert lamp.name == "a"


def test_our_own_drivers_come_by_the_same_door() -> None:
    assert {"sim.world", "sim.slm", "sim.laser", "sim.camera"} <= set(
        registry.installed()
    )


def test_an_unknown_driver_lists_what_is_installed_and_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"acme\.lamp, .*sim\.slm.* mean acme\.lamp\?"):
        registry.load("acme.lmap")


def test_two_packages_with_one_name_are_refused(package: Package) -> None:
    package("acme_twin", SOURCE, {"acme.lamp": "acme_twin:Lamp"})
    with pytest.raises(InputError, match="got 2: acme_lamp, acme_twin"):
        registry.load("acme.lamp")
    registry.load("acme.any")


def test_a_missing_vendor_library_is_named_with_the_way_to_install_it() -> None:
    with pytest.raises(
        MissingLibraryError, match="module acme_sdk_that_is_absent is missing"
    ) as e:
        registry.load("acme.sdk")
    assert "pip install 'acme_lamp[acme]'" in str(e.value)
    with pytest.raises(InputError, match="Install what acme_lamp asks for"):
        registry.load("bolt.sdk")
    # No extra has it, and the driver is called after it.
    with pytest.raises(InputError, match=r"Install it: pip install acme_absent\."):
        registry.load("acme_absent.sdk")


def test_an_entry_point_to_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="importing acme_lamp:Absent failed"):
        registry.load("acme.absent")
    with pytest.raises(InputError, match="is int, expected a class or function"):
        registry.load("acme.number")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "a", "color": "red"},
            r"devices\.lamp\.options\.color: is not known, expected one of name, "
            r"colour, watts \(acme\.lamp\)\. Did you mean colour\?",
        ),
        ({"name": "a"}, "colour missing, acme.lamp expects it"),
        (
            {"name": "a", "colour": "red", "watts": -1},
            r"acme\.lamp refused its options: watts=-1, expected more than 0",
        ),
    ],
)
def test_options_that_do_not_fit_are_named(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        registry.build("acme.lamp", where="devices.lamp", arguments=arguments)


def test_what_a_driver_refuses_by_its_key_is_told_there() -> None:
    with pytest.raises(ProtocolError) as refused:
        registry.build("acme.keyed", where="devices.lamp", arguments={"watts": -1})
    (fault,) = refused.value.faults
    assert (fault.key, fault.text) == ("devices.lamp.options.watts", "got -1")


def test_a_driver_that_takes_anything_gets_everything() -> None:
    made = registry.build("acme.any", where="devices.any", arguments={"a": 1})
    assert made == {"a": 1}


def test_what_the_bench_sets_is_no_option_and_every_fault_is_told() -> None:
    with pytest.raises(ProtocolError) as e:
        registry.build(
            "acme.lamp",
            where="devices.lamp",
            arguments={"name": "b", "watt": 1},
            own={"name": "a", "clock": None},
        )
    assert [(fault.key, fault.text[:34]) for fault in e.value.faults] == [
        ("devices.lamp.options.name", "got 'b', expected no such option: t"[:34]),
        ("devices.lamp.options.watt", "is not known, expected one of colour"[:34]),
        ("devices.lamp.driver", "acme.lamp takes no clock, which the"[:34]),
        ("devices.lamp.options", "colour missing, acme.lamp expects "[:34]),
    ]
    assert "Did you mean watts?" in e.value.faults[1].text


def test_a_role_is_looked_at_before_the_options() -> None:
    for key in ("sim.laser", "cobolt.laser"):  # a class, and a function that tells
        with pytest.raises(ProtocolError, match=r"role SLM: write missing") as e:
            registry.check(
                key, where="devices.slm", role=SLM, arguments={}, own={"world": 1}
            )
        assert [fault.key for fault in e.value.faults] == ["devices.slm.driver"]


def test_a_driver_of_another_role_is_refused() -> None:
    with pytest.raises(InputError, match=r"of the role SLM: .*write missing"):
        registry.build(
            "acme.lamp",
            where="devices.slm",
            role=SLM,
            arguments={"name": "slm", "colour": "red"},
        )
