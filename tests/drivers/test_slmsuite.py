"""Proved on the simulated panel of slmsuite: levels go through it as they are."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from labctl.bench import RealClock
from labctl.devices import SLM
from labctl.errors import DeviceError, OutOfRangeError

pytestmark = pytest.mark.peer
Make = Callable[..., SLM]


@pytest.fixture
def make(need_module: Callable[..., ModuleType]) -> Make:
    need_module("slmsuite.hardware.slms.simulated")
    library = need_module("drivers.slmsuite")

    def made(**options: object) -> SLM:
        named: dict[str, Any] = {
            "panel": "simulated.SimulatedSLM",
            "arguments": {"resolution": [32, 24]},
            "shape": [24, 32],
            "pitch_um": 8,
            "settle_s": 0.1,
            "clock": RealClock(),
        }
        slm: SLM = library.SlmsuiteSLM(**named | options)
        return slm

    return made


def shown(slm: SLM) -> np.ndarray[Any, Any]:
    return np.asarray(slm._panel.display)  # type: ignore[attr-defined]  # slmsuite's own


def test_levels_are_not_turned_wrapped_or_corrected(make: Make) -> None:
    levels = np.random.default_rng(1).integers(0, 256, (24, 32)).astype(np.uint8)
    with make() as slm:
        assert not shown(slm).any()
        slm._panel.source["phase"] = np.ones((24, 32))  # type: ignore[attr-defined]
        slm.write(levels)
        assert np.array_equal(shown(slm), levels)


def test_ten_bits_are_ten_bits(make: Make) -> None:
    arguments = {"resolution": [32, 24], "bitdepth": 10}
    with make(bit_depth=10, arguments=arguments) as slm:
        levels = np.full((24, 32), 1023, dtype=np.uint16)
        slm.write(levels)
        assert np.array_equal(shown(slm), levels)
        with pytest.raises(OutOfRangeError, match="level=1024, expected 0 to 1023"):
            slm.write(levels + np.uint16(1))


def test_another_panel_is_refused(make: Make) -> None:
    with pytest.raises(DeviceError, match=r"shape=\[24, 32\], bit_depth=8, expected"):
        make(shape=[32, 24]).open()
    with pytest.raises(DeviceError, match=r"bit_depth=8, expected \[24, 32\], 10"):
        make(bit_depth=10).open()
    with pytest.raises(DeviceError, match="slm: open: AttributeError"):
        make(panel="simulated.NoSuchPanel").open()
    with pytest.raises(DeviceError, match="slm: open: TypeError"):
        make(arguments={"no_such": 1}).open()


def test_levels_that_change_on_the_way_are_noticed(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make() as slm:
        panel = slm._panel  # type: ignore[attr-defined]  # slmsuite's own
        with monkeypatch.context() as patch:
            patch.setattr(panel, "set_phase", lambda levels, **_: levels + 1)
            with pytest.raises(DeviceError, match="other levels were sent"):
                slm.write(np.zeros((24, 32), dtype=np.uint8))


@pytest.mark.parametrize(
    "wrong",
    [{"shape": [3]}, {"bit_depth": 17}, {"panel": "os.path.x"}, {"pitch_um": 0}],
)
def test_options_that_make_no_sense_are_refused(
    make: Make, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="expected"):
        make(**wrong)


def test_an_output_gives_edges_where_the_panel_has_one(
    make: Make, monkeypatch: pytest.MonkeyPatch, need_module: Callable[..., ModuleType]
) -> None:
    with make() as slm:
        assert not slm.gives_edges
    with pytest.raises(DeviceError, match="does not support output triggering"):
        make(gives_edges=True).open()
    told: list[bool] = []
    kind = need_module("slmsuite.hardware.slms.simulated").SimulatedSLM

    def switched(_: object, on: bool) -> None:
        told.append(on)

    monkeypatch.setattr(kind, "set_output_trigger", switched)
    with make() as slm:
        assert told == []
    with make(gives_edges=True) as slm:
        assert slm.gives_edges
        assert told == [True]
        assert slm.settings()["gives_edges"] is True


def test_nobody_but_labctl_waits_for_the_panel(make: Make) -> None:
    levels = np.zeros((24, 32), dtype=np.uint8)
    with make() as slm:
        panel = slm._panel  # type: ignore[attr-defined]  # slmsuite's own
        show, asked = panel.set_phase, []

        def heard(phase: object, **options: object) -> object:
            asked.append(options)
            return show(phase, **options)

        panel.set_phase = heard
        slm.write(levels)
    assert asked[0]["settle"] is False
