import hashlib
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML
from typing_extensions import override

from labctl import bench, lane, state
from labctl.bench import BenchSource, RealClock
from labctl.calibration import CameraResponse, Settle
from labctl.devices import Clock, Reading
from labctl.errors import (
    CalibrationError,
    DeviceError,
    DeviceTimeoutError,
    InputError,
    InterlockError,
    LaserStillOnError,
    LatchedError,
    MissingLibraryError,
    OutOfRangeError,
    ProtocolError,
    SafetyError,
    SilentRunError,
)
from labctl.guard import Patience

Package = Callable[[str, str, Mapping[str, str]], Path]

# Every device writes what happens to it into one file, the laser too, which lives
# in another process; so the file holds the order in which things happened.
SOURCE = """
import threading
from pathlib import Path

import numpy as np

from labctl.devices import (
    SLM, Attenuator, Camera, CameraSettings, Identity, Laser, Meter, Reading, Shutter
)
from labctl.errors import DeviceError, InterlockError, LaserStillOnError


class Part:
    def __init__(self, *, name, clock, log, fault="", serial="4711"):
        self.clock, self._name, self._log, self._fault = clock, name, Path(log), fault
        self._serial = serial

    name = property(lambda self: self._name)

    def say(self, what):
        with self._log.open("a") as file:
            file.write(f"{self._name} {what}\\n")

    def open(self):
        self.say("open")
        if self._fault == "mute":
            raise DeviceError(self._name, "open", "no answer. Plug it in.")

    def hang(self):
        if self._fault == "hang":
            threading.Event().wait()

    def close(self):
        self.say("close")
        if self._fault == "slow":
            threading.Event().wait(30.0)
        if self._fault == "sticky":
            raise DeviceError(self._name, "close", "stuck. Pull the plug.")

    def identity(self):
        return Identity("acme", self._name, self._serial, "1")

    def settings(self):
        return {"fault": self._fault}


class AcmeLaser(Part, Laser):
    wavelength_nm = property(lambda self: 532.0)
    power_limits_mw = property(lambda self: (0.0, 50.0))
    repetition_rate_hz = property(lambda self: 5e3 if self._fault == "slow" else None)
    pulse_width_fs = property(lambda self: None)
    power = 0.0
    on = False

    def set_power_mw(self, power_mw):
        self.say(f"power {power_mw:g}")
        self.power = power_mw

    def setpoint_mw(self):
        return self.power

    def power_mw(self):
        return self.power * self.on

    def emission(self, on):
        if on and self._fault == "interlock":
            raise InterlockError("laser: the interlock is open. Close the door.")
        if not on and self._fault == "stays on":
            raise LaserStillOnError("laser: emission=on, expected off. Turn the key.")
        self.on = on
        self.say("on" if on else "off")

    def is_emitting(self):
        return self.on

    def faults(self):
        return ["back reflection"] if self._fault == "reflects" else []


class AcmeSLM(Part, SLM):
    shape = property(lambda self: (6, 8))
    bit_depth = property(lambda self: 8)
    pitch_um = property(lambda self: 8.0)
    settle_s = property(lambda self: 0.01)
    gives_edges = property(lambda self: self._fault == "edges")

    def write(self, levels):
        raise NotImplementedError


class AcmeCamera(Part, Camera):
    shape = property(lambda self: (4, 5))
    bit_depth = property(lambda self: 12)
    pixel_um = property(lambda self: 5.0)
    exposure_limits_s = property(lambda self: (1e-5, 1.0))
    gain_limits_db = property(lambda self: (0.0, 12.0))
    saturation_dn = property(lambda self: 4095)
    frame_id_modulus = property(lambda self: None)
    edge_lines = property(lambda self: ("Line1",) * self._fault.startswith("edges"))

    @property
    def edge_delay_limits_s(self):
        return (0.0, 1.0 if self._fault == "edges" else 0.001)

    def configure(self, *, exposure_s, gain_db=0.0, region=None):
        self.hang()
        self.say(f"exposure {exposure_s:g}")
        return CameraSettings(exposure_s, gain_db, region or (0, 0, 4, 5))

    def arm(self, frames):
        raise NotImplementedError

    def trigger(self):
        raise NotImplementedError

    def frame(self, timeout_s):
        raise NotImplementedError

    def disarm(self):
        pass


class AcmeShutter(Part, Shutter):
    _open = False

    def set_open(self, is_open):
        self.hang()
        self._open = is_open
        self.say("opened" if is_open else "closed")

    def is_open(self):
        return self._open


class AcmeAttenuator(Part, Attenuator):
    transmission_limits = property(lambda self: (0.001, 1.0))

    def set_transmission(self, transmission):
        self.say(f"transmission {transmission:g}")

    def transmission(self):
        return 1.0


class AcmeMeter(Part, Meter):
    unit = property(lambda self: "mW")

    def reading(self):
        self.hang()
        if self._fault == "silent":
            raise DeviceError(self._name, "reading", "unplugged. Plug it in.")
        return Reading(1.0, self.clock.now())
"""
WORLD = {"grid": [24, 32], "medium": {"steps": 2, "screens": 0}}
ROLES = ("Laser", "SLM", "Camera", "Shutter", "Attenuator", "Meter")


@pytest.fixture(autouse=True)
def acme(package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drivers = {f"acme.{role.lower()}": f"acme_bench:Acme{role}" for role in ROLES}
    package("acme_bench", SOURCE, drivers)
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("LABCTL_BENCH", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.txt"


class Lab:
    """Writes bench folders whose devices are those above."""

    def __init__(self, home: Path, log: Path) -> None:
        self.home, self.log = home, log

    def tree(self, *roles: str, **faults: str) -> dict[str, Any]:
        options = {"log": str(self.log)}
        return {
            "schema_version": 1,
            "name": "lab",
            "devices": {
                role: {
                    "driver": f"acme.{role}",
                    "options": options
                    | ({"fault": faults[role]} if role in faults else {}),
                }
                for role in ("slm", "laser", "camera", *roles)
            },
            "limits": {"power_mw": 20, "exposure_s": 0.1},
            "reservoir": {
                "macropixels": [3, 4],
                "region": [0, 0, 4, 5],
                "bins": [2, 1],
                "exposure_s": 0.001,
                "power_mw": 5,
            },
        }

    def simulated(self) -> BenchSource:
        roles = ("slm", "laser", "camera", "meter")
        simulated = {
            "world": {"driver": "sim.world", "options": WORLD},
            "devices": {role: {"driver": f"sim.{role}"} for role in roles},
            "sequence": {"driver": "sim.sequence"},
            "oracle": {"driver": "sim.oracle"},
        }
        return self.write(self.tree() | simulated)

    def write(
        self, tree: dict[str, Any], name: str = "lab", **serials: str
    ) -> BenchSource:
        folder = self.home / "calibrations" / name
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(tree | {"name": name}, indent=1)  # JSON is YAML
        (folder / "bench.yaml").write_text(text, encoding="utf-8")
        digest = hashlib.sha256(text.encode()).hexdigest()
        values: list[dict[str, object]] = [
            {"kind": "slm-phase", "span_rad": 6.0},
            {"kind": "settle", "settle_s": 0.02},
        ]
        files = []
        for each in values:
            files.append(f"{each['kind']}-20210402T101500Z.yaml")
            record = {
                "schema_version": 1,
                "origin": "given",
                "created": "2021-04-02T10:15:00Z",
                "bench_sha256": digest,
                "serials": serials,
                "values": each,
            }
            (folder / files[-1]).write_text(json.dumps(record), encoding="utf-8")
        current = {"schema_version": 1, "records": files}
        (folder / "current.yaml").write_text(json.dumps(current), encoding="utf-8")
        return bench.load(folder / "bench.yaml")

    def source(self, *roles: str, **faults: str) -> BenchSource:
        return self.write(self.tree(*roles, **faults))

    def said(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def lab(tmp_path: Path, log: Path) -> Lab:
    return Lab(tmp_path, log)


def test_the_laser_opens_first_and_everything_closes_in_reverse(lab: Lab) -> None:
    with bench.open(lab.source("meter", "shutter")) as table:
        assert lab.said() == [
            "laser open", "slm open", "camera open", "meter open", "shutter open",
        ]  # fmt: skip
        table.light(5.0)
        assert table.laser.power_mw() == 5.0
    assert lab.said()[5:] == [
        "laser power 5", "laser on", "shutter opened",
        "shutter closed", "laser off",
        "shutter close", "meter close", "camera close", "slm close", "laser close",
        "laser close",  # the guard makes sure
    ]  # fmt: skip


def test_a_bench_tells_who_is_there_and_how_it_is_set(lab: Lab) -> None:
    with bench.open(lab.source()) as table:
        assert not table.simulated
        assert table.notice == ""
        assert list(table.identities()) == ["laser", "slm", "camera"]
        assert table.identities()["camera"].serial == "4711"
        assert table.settings()["slm"] == {"fault": ""}
        assert isinstance(table.clock, RealClock)
        table.beat()


def test_a_wiring_that_its_devices_cannot_use_is_refused_at_open(lab: Lab) -> None:
    wire = {"source": "slm", "line": "Line1"}
    tree = lab.tree(slm="edges", camera="edges") | {"wiring": {"exposure": wire}}
    with bench.open(lab.write(tree)) as table:
        assert table.sequence is not None
    for part, match in (
        ("slm", r"slm: wiring: gives_edges=no, expected an edge.*gives_edges in the"),
        (
            "camera",
            r"camera: wiring: line=Line1, expected one of none\. Correct",
        ),
    ):
        tree["devices"][part]["options"]["fault"] = ""
        with pytest.raises(DeviceError, match=match):
            bench.open(lab.write(tree))
        assert lab.said()[-4:-1] == ["camera close", "slm close", "laser close"]
        tree["devices"][part]["options"]["fault"] = "edges"
    # By the settling that was calibrated, not by what the vendor says.
    tree["devices"]["camera"]["options"]["fault"] = "edges, at once"
    with pytest.raises(DeviceError, match=r"delay=0\.02 s, .*expected 0 to 0\.001 s"):
        bench.open(lab.write(tree))


def test_a_batch_is_played_in_one_way(lab: Lab) -> None:
    tree = lab.tree() | {"wiring": {"exposure": {"source": "slm", "line": "Line1"}}}
    with pytest.raises(ProtocolError, match="another way to play a batch"):
        lab.write(tree | {"sequence": {"driver": "sim.sequence"}})
    tree["wiring"]["exposure"]["source"] = "clock"
    with pytest.raises(ProtocolError, match=r"wiring\.exposure\.source"):
        lab.write(tree)


def test_calibrations_in_force_come_with_the_bench(lab: Lab) -> None:
    with bench.open(lab.source()) as table:
        assert set(table.calibrations) == {"slm-phase", "settle"}
        curve = table.phase_curve_rad()
        assert curve.shape == (256,)
        np.testing.assert_allclose(np.diff(curve), 6.0 / 256)


def test_a_calibration_of_another_device_is_refused(lab: Lab) -> None:
    bench.open(lab.write(lab.tree(), camera="4711")).close()
    with pytest.raises(
        CalibrationError, match=r"slm-phase: camera serial=4711, expected 4712\. Meas"
    ):
        bench.open(lab.write(lab.tree(), camera="4712"))
    assert lab.said()[-2] == "laser close"


def test_a_stale_calibration_is_refused_before_anything_opens(lab: Lab) -> None:
    source = lab.source()
    changed = source.path.read_text().replace("0.1", "0.2")
    source.path.write_text(changed, encoding="utf-8")
    with pytest.raises(CalibrationError, match="given for another bench file"):
        bench.open(bench.load("lab"))
    assert lab.said() == []


def test_power_beyond_the_limit_is_refused_and_the_laser_never_on(lab: Lab) -> None:
    with bench.open(lab.source()) as table:
        with pytest.raises(
            OutOfRangeError, match=r"power_mw=21, .*0 to 20.* \(bench f"
        ):
            table.light(21)
        with pytest.raises(OutOfRangeError, match="power_mw=nan"):
            table.light(math.nan)
    assert not {"laser power 21", "laser on"} & set(lab.said())


def test_exposure_beyond_the_limit_is_refused_before_the_camera_hears_of_it(
    lab: Lab,
) -> None:
    with bench.open(lab.source()) as table:
        with pytest.raises(OutOfRangeError, match=r"exposure_s=0\.2.*\(bench file\)"):
            table.configure_camera(exposure_s=0.2)
        assert table.configure_camera(exposure_s=0.05).region == (0, 0, 4, 5)
    assert "camera exposure 0.2" not in lab.said()


def test_limits_are_sentences_before_anything_opens(lab: Lab) -> None:
    file = lab.source().file
    assert bench.limit_faults(file, power_mw=20, exposure_s=0.1) == []
    power, exposure = bench.limit_faults(file, power_mw=-1, exposure_s=7)
    assert power.startswith("power_mw=-1, expected 0 to 20 (bench lab).")
    assert exposure.startswith("exposure_s=7, expected 0 to 0.1 (bench lab).")


def test_with_an_attenuator_the_laser_stays_at_one_power(lab: Lab) -> None:
    with bench.open(lab.source("attenuator")) as table:
        table.light(5.0)
        table.light(10.0)
    said = lab.said()
    assert [line for line in said if line.startswith("laser power")] == [
        "laser power 20",
        "laser power 20",
    ]
    assert said.index("attenuator transmission 0.25") < said.index("laser on")
    assert "attenuator transmission 0.5" in said


@pytest.mark.parametrize(
    ("dark", "expected"),
    [("emission_off", ["shutter closed", "laser off"]),
     ("shutter_closed", ["shutter closed"])],
)  # fmt: skip
def test_dark_is_what_the_bench_file_says(
    lab: Lab, dark: str, expected: list[str]
) -> None:
    with bench.open(lab.write(lab.tree("shutter") | {"dark": dark})) as table:
        table.light(5.0)
        before = len(lab.said())
        table.dark()
        assert lab.said()[before:] == expected


def test_an_exception_in_the_body_makes_dark_and_stays_the_story(lab: Lab) -> None:
    with pytest.raises(ZeroDivisionError), bench.open(lab.source()) as table:
        table.light(5.0)
        raise ZeroDivisionError
    assert lab.said()[-5:-1] == [
        "laser off",
        "camera close",
        "slm close",
        "laser close",
    ]


def test_an_open_interlock_ends_dark_with_its_own_error(lab: Lab) -> None:
    source = lab.source("shutter", laser="interlock")
    with bench.open(source) as table:
        with pytest.raises(InterlockError, match="Close the door"):
            table.light(5.0)
        assert lab.said()[-2:] == ["shutter closed", "laser off"]


def test_half_open_closes_what_is_open(lab: Lab) -> None:
    with pytest.raises(DeviceError, match="camera: open: no answer"):
        bench.open(lab.source("meter", camera="mute"))
    assert lab.said()[:-1] == [
        "laser open", "slm open", "camera open",
        "laser off", "camera close", "slm close", "laser close",
    ]  # fmt: skip


def test_every_step_of_closing_is_attempted_and_all_failures_are_told(
    lab: Lab,
) -> None:
    table = bench.open(lab.source("meter", meter="sticky", slm="sticky"))
    with pytest.raises(DeviceError, match="meter: close: stuck") as caught:
        table.close()
    assert caught.value.__notes__ == ["and: slm: close: stuck. Pull the plug."]
    assert "laser close" in lab.said()
    table.close()


def test_failures_while_closing_are_notes_on_what_went_wrong_first(lab: Lab) -> None:
    with pytest.raises(ZeroDivisionError) as caught:  # noqa: SIM117 - one at a time
        with bench.open(lab.source(camera="sticky")):
            raise ZeroDivisionError
    assert caught.value.__notes__ == [
        "while closing: camera: close: stuck. Pull the plug."
    ]


def test_a_laser_that_is_still_on_outranks_everything(lab: Lab) -> None:
    source = lab.source(laser="stays on", camera="sticky")
    with (
        pytest.raises(LaserStillOnError, match="Turn the key") as caught,
        bench.open(source) as table,
    ):
        table.light(5.0)
        raise ZeroDivisionError
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "and: camera: close: stuck. Pull the plug." in caught.value.__notes__


def test_another_device_than_the_one_named_is_refused(lab: Lab) -> None:
    tree = lab.tree()
    tree["devices"]["camera"]["serial"] = "4712"
    with pytest.raises(DeviceError, match="camera: open: serial=4711, expected 4712"):
        bench.open(lab.write(tree))
    assert "camera close" in lab.said()


def test_a_missing_role_is_refused_on_reading(lab: Lab) -> None:
    tree = lab.tree()
    del tree["devices"]["camera"]
    with pytest.raises(ProtocolError, match=r"devices\.camera"):
        lab.write(tree)


@pytest.mark.parametrize("role", ["laser", "camera"])
def test_an_unknown_driver_lists_what_is_installed_and_opens_nothing(
    lab: Lab, role: str
) -> None:
    tree = lab.tree()
    tree["devices"][role]["driver"] = f"acme.{role}s"
    with pytest.raises(InputError, match=rf"installed drivers: .*mean acme\.{role}\?"):
        bench.open(lab.write(tree))
    assert lab.said() == []


@pytest.mark.parametrize(
    ("role", "options", "message"),
    [
        (
            "slm",
            {"faults": "x"},
            r"slm\.options\.faults: is not known.*mean fault\?",
        ),
        (
            "slm",
            {"name": "x"},
            r"slm\.options\.name: got 'x'.*the bench sets it",
        ),
        ("laser", {"faults": "x"}, r"devices\.laser\.options\.faults: is not known"),
    ],
)
def test_options_that_do_not_fit_open_nothing(
    lab: Lab, role: str, options: dict[str, str], message: str
) -> None:
    tree = lab.tree()
    tree["devices"][role]["options"].update(options)
    with pytest.raises(InputError, match=message):
        bench.open(lab.write(tree))
    assert lab.said() == []


def test_a_real_bench_has_one_owner(lab: Lab) -> None:
    source = lab.source()
    with bench.open(source):
        mine = f"held by process {os.getpid()} on {socket.gethostname()}"
        with pytest.raises(InputError, match=mine):
            bench.open(source)
    bench.open(source).close()


def test_a_lock_without_its_owner_beside_it_still_holds(lab: Lab) -> None:
    source = lab.source()
    with bench.open(source):
        (state.folder() / "lab.owner.json").write_text("{")
        with pytest.raises(InputError, match="held by another process, expected it f"):
            bench.open(source)


def test_locks_lie_in_the_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert state.folder() == tmp_path / "state"
    monkeypatch.delenv("LABCTL_STATE")
    assert state.folder().name == "labctl"
    assert state.folder().is_absolute()


def test_a_real_bench_has_no_oracle_and_takes_no_overrides(lab: Lab) -> None:
    source = lab.source()
    with bench.open(source) as table, pytest.raises(InputError, match="oracle=none"):
        table.oracle()
    with pytest.raises(InputError, match="would change a real bench"):
        bench.load(source.path, ["limits.power_mw=99"])


def test_a_bench_without_a_phase_calibration_says_so(lab: Lab) -> None:
    with bench.open(lab.source()) as table:
        table.calibrations = {}
        with pytest.raises(CalibrationError, match="slm-phase=none"):
            table.phase_curve_rad()


def test_choosing_goes_from_the_option_to_the_simulator(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = bench.load("loopback").path.parent
    shutil.copytree(shipped, "calibrations/loopback")
    assert bench.choose(None, None) == ("sim", "no real bench in calibrations")
    lab.source()
    assert bench.choose(None, None) == ("lab", "the only real bench in calibrations")
    lab.write(lab.tree(), "lab-b")
    assert bench.choose(None, None) == ("sim", "2 real benches in calibrations")
    monkeypatch.setenv("LABCTL_BENCH", "lab-b")
    assert bench.choose(None, None) == ("lab-b", "named by LABCTL_BENCH")
    monkeypatch.setenv("LABCTL_BENCH", "lab-c")
    with pytest.raises(InputError, match=r"LABCTL_BENCH=lab-c: no such file.*unset"):
        bench.choose(None, None)
    assert bench.choose("lab", None) == ("lab", "named by the protocol")
    assert bench.choose("lab", "sim") == ("sim", "named by --bench")


def test_a_broken_bench_file_stops_nobody_who_wants_another(lab: Lab) -> None:
    lab.source()
    wrong = lab.home / "calibrations" / "old" / "bench.yaml"
    wrong.parent.mkdir()
    name = "calibrations/old/bench.yaml"
    limits = {"power_mw": -8, "exposure_s": 0.1}
    simulated = {"world": {"driver": "sim.world"}, "limits": limits}
    wrong.write_text(json.dumps(lab.tree() | simulated), encoding="utf-8")
    chosen, reason = bench.choose(None, None)
    assert chosen == "lab"
    assert reason == (
        "the only real bench in calibrations; "
        f"{name} has faults: labctl validate {name}"
    )
    # Where it may be another real one, nobody is led to real light by its faults.
    for text in (json.dumps(lab.tree() | {"limits": limits}), "a: [", "7", "\x00"):
        wrong.write_text(text, encoding="utf-8")
        chosen, reason = bench.choose(None, None)
        assert chosen == "sim"
        assert reason == (
            f"1 real bench in calibrations; {name} has faults and may be a real bench: "
            f"labctl validate {name}"
        )


def test_the_real_clock_runs_by_itself() -> None:
    clock = RealClock()
    before = clock.now()
    clock.sleep(0.0)
    assert clock.now() >= before
    for wrong in (-1.0, math.nan):
        with pytest.raises(ValueError, match="expected 0 or more"):
            clock.sleep(wrong)


def test_the_driver_of_the_how_to_page_works_on_a_bench(
    lab: Lab, package: Package, tmp_path: Path
) -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-driver.md"
    blocks: dict[str, str] = {}
    for block in page.read_text(encoding="utf-8").split("```")[1::2]:
        language, text = block.split("\n", 1)
        blocks.setdefault(language, text)  # the driver comes first
    points = tomllib.loads(blocks["toml"])["project"]["entry-points"]
    package("bolt_meter", blocks["python"], points["labctl.drivers"])
    tree = lab.tree()
    tree["devices"] |= YAML(typ="safe").load(blocks["yaml"])["devices"]
    reading = tmp_path / "reading.txt"
    reading.write_text("1.25\n")
    with bench.open(lab.write(tree)) as table:
        assert table.meter is not None
        assert table.meter.reading().value == 1.25
        reading.unlink()
        with pytest.raises(DeviceError, match="meter: read"):
            table.meter.reading()


TWIN: dict[str, Any] = {"world": WORLD, "slm": {}, "laser": {}, "camera": {}}


def test_any_bench_can_be_simulated_with_its_own_shapes(lab: Lab) -> None:
    with bench.open(lab.write(lab.tree("shutter", "meter")), simulate=True) as table:
        assert (table.slm.shape, table.camera.shape) == ((6, 8), (4, 5))
        assert table.slm.settle_s == pytest.approx(0.01)
        assert "It has not a meter (twin.meter)." in table.notice
        assert table.shutter is not None
        table.configure_camera(exposure_s=0.001)
        table.light(5.0)
        assert table.sequence is not None
        levels = np.zeros((1, 6, 8), np.uint8)
        frame = table.sequence.play(levels, settle_s=0.1).frames[0]
        assert frame.shape == (4, 5)
        assert 300 < frame.mean() < 60_000
    assert lab.said() == []


def test_the_twin_opens_instead_of_the_devices_and_says_so(lab: Lab) -> None:
    source = lab.write(lab.tree() | {"twin": TWIN})
    with bench.open(source, simulate=True, seed=3) as table:
        assert table.simulated
        assert table.notice.startswith("bench lab: SIMULATED by its twin, because --s")
        assert table.file.limits == source.file.limits
        assert table.identities()["laser"].model == "simulated laser"
        curve = table.phase_curve_rad()
        assert curve[128] == pytest.approx(math.pi)
        values = [record.values for record in table.calibrations.values()]
        assert any(isinstance(each, Settle) for each in values)
        assert any(isinstance(each, CameraResponse) for each in values)
        with pytest.raises(OutOfRangeError, match="power_mw=21"):
            table.light(21)
        table.light(5.0)
        assert table.laser.power_mw() == pytest.approx(5.0)
    assert lab.said() == []


def test_the_twin_is_a_fallback_only_where_a_device_does_not_answer(lab: Lab) -> None:
    tree = lab.tree(camera="mute") | {"twin": TWIN, "fallback": "sim"}
    with bench.open(lab.write(tree)) as table:
        assert table.simulated
        assert "because a device did not answer (camera: open" in table.notice
    assert lab.said()[-2] == "laser close"
    tree = lab.tree() | {"twin": TWIN, "fallback": "sim"}
    tree["devices"]["camera"]["serial"] = "4712"
    with pytest.raises(DeviceError, match="serial=4711"):
        bench.open(lab.write(tree))
    tree["devices"]["camera"]["driver"] = "acme.kamera"
    with pytest.raises(InputError, match=r"acme\.kamera"):
        bench.open(lab.write(tree))


def test_the_twin_is_a_fallback_where_the_library_of_a_driver_is_missing(
    lab: Lab, package: Package
) -> None:
    package("acme_new", "", {"acme.eye": "acme_library_that_is_absent:Eye"})
    tree = lab.tree() | {"twin": TWIN, "fallback": "sim"}
    tree["devices"]["camera"] = {"driver": "acme.eye", "options": {"shape": [4, 5]}}
    source = lab.write(tree)
    with bench.open(source) as table:
        assert table.simulated
        assert table.notice.startswith(
            "bench lab: SIMULATED by its twin, because a driver cannot be used "
            "(devices.camera: driver=acme.eye: the module acme_library_that_is_absent"
        )
        assert table.camera.shape == (4, 5)
    assert lab.said() == []
    assert bench.construct(source, fall_back=True).notice == table.notice
    # labctl devices and labctl calibrate ask the devices alone.
    with pytest.raises(MissingLibraryError, match=r"acme\.eye"):
        bench.construct(source)
    with pytest.raises(MissingLibraryError, match=r"acme\.eye"):
        bench.open(source, allow_uncalibrated=True)
    with pytest.raises(MissingLibraryError, match=r"acme\.eye"):
        bench.open(lab.write(tree | {"fallback": None}))


def test_every_refused_driver_is_told_with_its_place(lab: Lab) -> None:
    tree = lab.tree("meter")
    tree["devices"]["camera"]["driver"] = "acme.laser"
    tree["devices"]["laser"]["options"] = {}
    tree["devices"]["slm"]["options"]["faults"] = "x"
    tree["devices"]["meter"]["driver"] = "acme.metre"
    with pytest.raises(ProtocolError) as e:
        bench.construct(lab.write(tree))
    assert [(fault.key, fault.line is not None) for fault in e.value.faults] == [
        ("devices.slm.options.faults", True),
        ("devices.camera.driver", True),
        ("devices.meter.driver", True),
        ("devices.laser.options", True),
    ]
    assert e.value.faults[0].where == str(lab.home / "calibrations/lab/bench.yaml")
    assert lab.said() == []


def test_a_simulated_bench_brings_light_world_and_oracle(lab: Lab) -> None:
    with bench.open(lab.simulated(), seed=1) as table:
        assert table.simulated
        assert table.notice == ""
        assert table.world is not None
        assert table.clock is table.world.clock
        assert table.oracle() is table.oracle()
        assert set(table.settings()) == {"laser", "slm", "camera", "meter", "world"}
        assert table.sequence is not None
        table.configure_camera(exposure_s=0.01)
        levels = np.zeros((2, 24, 32), np.uint8)
        unlit = table.sequence.play(levels, settle_s=0.1).frames
        table.light(5.0)
        lit = table.sequence.play(levels, settle_s=0.1).frames
        table.dark()
        again = table.sequence.play(levels, settle_s=0.1).frames
        assert lit.shape == (2, 24, 32)
        assert lit.mean() > max(unlit.mean(), again.mean()) + 1


def test_a_simulated_bench_takes_overrides_and_leaves_nothing_behind(
    lab: Lab,
) -> None:
    source = bench.load(lab.simulated().path, ["limits.power_mw=6"])
    assert source.file.limits.power_mw == 6
    with bench.open(source) as one, bench.open(source) as other:
        assert one.beam is not None
        assert other.beam is not None
        assert one.beam != other.beam
        assert one.beam.exists()
        with pytest.raises(DeviceError, match="bench lab: open: is open already"):
            one.open()
    assert not one.beam.parent.exists()
    assert not other.beam.parent.exists()


def test_a_wrong_option_of_the_world_is_refused_with_its_place(lab: Lab) -> None:
    source = bench.load(lab.simulated().path, ["world.options.medium.steps=-1"])
    with pytest.raises(
        InputError,
        match=r" line \d+ .*: world\.options: sim\.world refused .*-1",
    ):
        bench.open(source)


RUN = """
import sys
from labctl import bench, lane, state

with bench.open(bench.load(sys.argv[1])) as table:
    table.light(table.file.reservoir.power_mw)
    print(table.beam, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def run(lab: Lab, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has an open, lit bench and waits."""
    source = lab.simulated() if request.param == "sim" else lab.source("shutter")
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and text
        [sys.executable, "-c", RUN, str(source.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with process:
        yield process
        process.kill()


def _told(run: subprocess.Popen[bytes]) -> str:
    assert run.stdout is not None
    return run.stdout.readline().decode().strip()


@pytest.mark.parametrize("run", ["sim"], indirect=True)
def test_a_killed_run_leaves_the_beam_dark(run: subprocess.Popen[bytes]) -> None:
    beam = Path(_told(run))
    with beam.open("rb", buffering=0) as file:
        assert _emits(file.read())
        run.kill()
        # The subject is another process on real time, so this test watches it.
        due = time.monotonic() + 2.0
        while file.seek(0) or _emits(file.read()):
            assert time.monotonic() < due, "not dark in time"
    shutil.rmtree(beam.parent)  # a killed run cannot


def _emits(beam: bytes) -> bool:
    return bool(int.from_bytes(beam[12:16], "little") & 1)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("run", ["acme"], indirect=True)
def test_ctrl_c_closes_the_bench_in_order(
    run: subprocess.Popen[bytes], lab: Lab
) -> None:
    assert _told(run) == "None"
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait(10) != 0
    assert lab.said()[-8:-1] == [
        "shutter opened", "shutter closed", "laser off",
        "shutter close", "camera close", "slm close", "laser close",
    ]  # fmt: skip


def _limited(
    lab: Lab, *roles: str, faults: dict[str, str] | None = None, **limits: object
) -> BenchSource:
    tree = lab.tree(*roles, **(faults or {}))
    tree["limits"] |= limits
    return lab.write(tree)


PULSES: dict[str, Any] = {
    "beam_diameter_um": 2000.0,
    "repetition_rate_hz": 1e4,
    "pulse_width_fs": 100.0,
}


def test_densities_are_those_in_the_middle_of_the_beam(lab: Lab) -> None:
    limits = _limited(
        lab,
        power_density_mw_per_mm2=100,
        fluence_uj_per_mm2=100,
        pulse_density_w_per_mm2=1e12,
        **PULSES,
    ).file.limits
    found = limits.densities(5.0)
    # Twice the mean over a disc of 1 mm radius: 2 x 5 mW / pi mm2.
    assert found["power_density_mw_per_mm2"] == pytest.approx(10 / math.pi)
    assert found["fluence_uj_per_mm2"] == pytest.approx(1 / math.pi)
    assert found["pulse_density_w_per_mm2"] == pytest.approx(1e7 / math.pi)


@pytest.mark.parametrize(
    ("limit", "most"),
    [
        ("power_density_mw_per_mm2", 8 / math.pi * 2),
        ("fluence_uj_per_mm2", 0.8 / math.pi * 2),
        ("pulse_density_w_per_mm2", 0.8e7 / math.pi * 2),
    ],
)
def test_a_density_limits_the_power(lab: Lab, limit: str, most: float) -> None:
    source = _limited(lab, **(PULSES | {limit: most}))
    (fault,) = bench.limit_faults(source.file, power_mw=9.0)
    assert fault.startswith(f"{limit}=")
    assert "Lower power_mw in the protocol" in fault
    with bench.open(source) as table:
        table.light(7.9)
        with pytest.raises(OutOfRangeError, match=limit):
            table.light(9.0)
    assert "laser power 9" not in lab.said()


def test_limits_that_cannot_be_checked_are_refused(lab: Lab) -> None:
    with pytest.raises(ProtocolError) as caught:
        _limited(lab, fluence_uj_per_mm2=1.0)
    for key in ("beam_diameter_um", "repetition_rate_hz"):
        assert f"expected {key} beside it" in str(caught.value)
    with pytest.raises(ProtocolError, match=r"limits\.meter.*no meter to read"):
        _limited(lab, meter={"low": 1, "high": 2, "oldest_s": 1})
    with pytest.raises(ProtocolError, match="expected more than low=2"):
        _limited(lab, "meter", meter={"low": 2, "high": 1, "oldest_s": 1})
    with pytest.raises(ProtocolError, match=r"at most half of heartbeat_s=0\.1"):
        _limited(lab, heartbeat_s=0.1)


def test_the_heartbeat_is_two_seconds_unless_the_bench_says_otherwise(lab: Lab) -> None:
    assert lab.source().file.heartbeat_s == 2.0
    assert lab.simulated().file.heartbeat_s == 5.0
    assert _limited(lab, heartbeat_s=1.0).file.heartbeat_s == 1.0
    with pytest.raises(ProtocolError, match="heartbeat_s"):
        _limited(lab, heartbeat_s=6.0)


def test_pulses_longer_apart_than_was_checked_are_refused(lab: Lab) -> None:
    source = _limited(lab, faults={"laser": "slow"}, **PULSES)
    with pytest.raises(DeviceError, match="repetition_rate_hz=5000, expected at least"):
        bench.open(source)
    assert "laser on" not in lab.said()


def test_power_ramps_up_and_down(lab: Lab) -> None:
    with bench.open(_limited(lab, ramp_mw_per_s=100)) as table:
        table.light(5.0)
        table.light(3.0)
        table.dark()
    said = [line for line in lab.said() if line.startswith("laser p") or " o" in line]
    assert said[3:] == [
        "laser power 0", "laser on",
        "laser power 1.66667", "laser power 3.33333", "laser power 5",
        "laser power 5", "laser on", "laser power 3",
        "laser power 1.5", "laser power 0", "laser off",
        "laser off",
    ]  # fmt: skip


def test_a_meter_out_of_range_latches_the_bench(lab: Lab) -> None:
    source = _limited(lab, "meter", meter={"low": 2, "high": 3, "oldest_s": 1})
    with (
        pytest.raises(SafetyError, match=r"reading=1 mW, expected 2 to 3"),
        bench.open(source) as table,
    ):
        table.beat()  # dark: nothing to judge
        table.light(5.0)
        table.beat()
    assert "laser off" in lab.said()
    opened = lab.said().count("laser open")
    with pytest.raises(LatchedError, match="reading=1 mW"):
        bench.open(source)
    assert lab.said().count("laser open") == opened, "nothing was touched"
    state.clear("lab", "put the meter back")
    bench.open(source).close()


def _virtual(lab: Lab, **limits: object) -> BenchSource:
    source = lab.simulated()
    tree = json.loads(source.text)
    tree["limits"] |= limits
    return lab.write(tree)


def test_a_stale_meter_counts_as_unsafe(lab: Lab) -> None:
    source = _virtual(lab, meter={"low": 0, "high": 9, "oldest_s": 2})
    with (
        pytest.raises(SafetyError, match=r"s old, expected 0 to 2 s"),
        bench.open(source) as table,
    ):
        table.light(5.0)
        table.beat()
        assert table.meter is not None
        kept = table.meter.reading()
        table.meter.reading = lambda: kept  # type: ignore[method-assign]  # frozen
        table.clock.sleep(3.0)
        table.beat()
    assert state.latched("lab") is not None


def test_a_reading_from_the_future_counts_as_unsafe(lab: Lab) -> None:
    source = _virtual(lab, meter={"low": 0, "high": 9, "oldest_s": 2})
    with (
        pytest.raises(SafetyError, match=r"reading is -1e\+09 s old, expected 0 to 2"),
        bench.open(source) as table,
    ):
        assert table.meter is not None
        kept = Reading(5.0, table.clock.now() + 1e9)  # of the calendar's clock
        table.meter.reading = lambda: kept  # type: ignore[method-assign]  # frozen
        table.light(5.0)
        table.beat()
    assert state.latched("lab") is not None


def test_a_room_that_grows_too_warm_stops_the_run(lab: Lab) -> None:
    source = lab.simulated()
    tree = json.loads(source.text)
    # A degree each second, from 21.
    options = {"shows": "temperature", "k_per_h": 3600.0}
    tree["devices"]["thermometer"] = {"driver": "sim.meter", "options": options}
    tree["limits"]["thermometer"] = {"low": 15, "high": 28, "oldest_s": 2}
    with (
        pytest.raises(SafetyError, match=r"thermometer: reading=\S+ C, expected 15"),
        bench.open(lab.write(tree)) as table,
    ):
        assert table.identities()["thermometer"].model == "simulated thermometer"
        table.light(5.0)
        for _ in range(9):
            table.beat()
            assert table.clock.now() < 7.1
            table.clock.sleep(1.0)
    assert state.latched("lab") is not None
    tree["devices"].pop("thermometer")
    with pytest.raises(ProtocolError, match=r"limits\.thermometer.*no thermometer to"):
        lab.write(tree)


def test_a_bench_rests_where_the_duty_asks_for_it(lab: Lab) -> None:
    with bench.open(_virtual(lab, duty=0.25, duty_window_s=4.0)) as table:
        table.light(5.0)
        start_s = table.clock.now()
        table.clock.sleep(0.9)
        table.beat()
        assert table.clock.now() - start_s == pytest.approx(0.9)
        table.clock.sleep(0.2)
        table.beat()
        assert table.clock.now() - start_s == pytest.approx(1.1 + 3.0)
        assert table.laser.power_mw() == 5.0
        table.beat()
        assert table.clock.now() - start_s == pytest.approx(1.1 + 3.0)


class Skipping(Clock):
    """Real time, and what was slept on top of it."""

    slept_s = 0.0

    @override
    def now(self) -> float:
        return time.monotonic() + self.slept_s

    @override
    def sleep(self, seconds: float) -> None:
        self.slept_s += seconds


def _lit_file() -> dict[str, Any]:
    text = (state.folder() / "lab.lit.json").read_text(encoding="utf-8")
    kept: dict[str, Any] = json.loads(text)
    return kept


@pytest.mark.parametrize("dark", ["shutter_closed", "emission_off"])
def test_duty_holds_over_runs_of_a_real_bench(lab: Lab, dark: str) -> None:
    tree = lab.tree("shutter")
    tree["limits"] |= {"duty": 0.25, "duty_window_s": 40.0}
    source = lab.write(tree | {"dark": dark})
    with bench.open(source) as table:
        assert table.takeover == ""
        table.clock = clock = Skipping()
        table.light(5.0)
        assert clock.slept_s == 0
        assert _lit_file()["since_s"] is not None
        table.dark()
        assert _lit_file()["since_s"] is None
        assert table.laser.is_emitting() == (dark == "shutter_closed")
        table.light(5.0)
    kept = _lit_file()
    assert (len(kept["spans"]), kept["since_s"]) == (2, None)
    # As it had been, had it lasted; the next run pays for it before its first light.
    now_s = time.monotonic()
    lasted = json.dumps(kept | {"spans": [[now_s - 20, now_s - 8]]})
    (state.folder() / "lab.lit.json").write_text(lasted, encoding="utf-8")
    with bench.open(source) as table:
        assert re.search(r"rests 2[0-2] s first \(limits\.duty\)", table.takeover)
        table.clock = clock = Skipping()
        assert table.rest_s() == pytest.approx(22.0, abs=2.0)
        with pytest.raises(OutOfRangeError):
            table.light(50.0)
        assert clock.slept_s == 0
        table.light(5.0)
        assert clock.slept_s == pytest.approx(22.0, abs=2.0)
        table.beat()
        assert clock.slept_s == pytest.approx(22.0, abs=2.0)
    assert lab.said().count("laser on") == 3


def test_a_damaged_history_of_light_is_told_and_rested_for(lab: Lab) -> None:
    source = _limited(lab, duty=0.25, duty_window_s=40.0)
    state.folder().mkdir()
    (state.folder() / "lab.lit.json").write_text("{", encoding="utf-8")
    with bench.open(source) as table:
        assert "lab.lit.json cannot be read" in table.takeover
        assert "rests 30 s first" in table.takeover
    assert len(_lit_file()["spans"]) == 1


def test_there_is_no_light_where_nobody_can_note_it(lab: Lab) -> None:
    kept = state.folder() / "lab.lit.json"
    with bench.open(_limited(lab, duty=0.25)) as table:
        kept.unlink()
        kept.mkdir()
        with pytest.raises(DeviceError, match=r"lab\.lit\.json.*Make room"):
            table.light(5.0)
        assert "laser on" not in lab.said()
        kept.rmdir()
        table.light(5.0)
    assert len(_lit_file()["spans"]) == 2


def test_a_bench_that_cannot_tell_whether_it_is_dark_counts_as_lit(lab: Lab) -> None:
    tree = lab.tree(laser="stays on")
    tree["limits"] |= {"duty": 0.5}
    table = bench.open(lab.write(tree))
    table.light(5.0)
    with pytest.raises(LaserStillOnError):
        table.dark()
    assert _lit_file()["since_s"] is not None
    with pytest.raises(LaserStillOnError):
        table.close()


def test_virtual_time_leaves_no_history_of_light(lab: Lab) -> None:
    with bench.open(_virtual(lab, duty=0.25, duty_window_s=4.0)) as table:
        table.light(5.0)
        table.clock.sleep(0.9)
    assert not (state.folder() / "lab.lit.json").exists()
    with bench.open(_virtual(lab, duty=0.25, duty_window_s=4.0)) as table:
        assert table.rest_s() == 0


def test_saturation_stops_where_the_bench_says_so(lab: Lab) -> None:
    with bench.open(lab.source()) as table:
        table.judge_saturation(3)
    with (
        pytest.raises(SafetyError, match="saturated_px=3, expected 0"),
        bench.open(_limited(lab, on_saturation="stop")) as table,
    ):
        table.judge_saturation(0)
        table.judge_saturation(3)


def test_the_beam_is_blocked_during_announced_digital_work(lab: Lab) -> None:
    with bench.open(lab.source()) as table:
        with table.digital(30.0):
            pass
        assert "laser on" not in lab.said()
        table.light(5.0)
        with table.digital(30.0):
            assert not table.laser.is_emitting()
        assert table.laser.power_mw() == 5.0


def test_what_the_guard_stopped_is_told_before_what_it_caused(lab: Lab) -> None:
    source = _limited(lab, heartbeat_s=0.2, exposure_s=0.1)
    with pytest.raises(SilentRunError) as caught, bench.open(source) as table:
        table.light(5.0)
        with table.dark_after():
            due = time.monotonic() + 5.0
            while table.laser.stopped() is None and time.monotonic() < due:
                pass
            raise DeviceError("camera", "frame", "all black")
    assert isinstance(caught.value.__cause__, DeviceError)
    assert state.latched("lab") is None, "a silent run is no fault of the bench"


def test_an_owner_that_died_is_told_of(lab: Lab) -> None:
    source = lab.source()
    bench.open(source).close()
    left = json.dumps({"pid": 4711, "host": "elsewhere"})
    (state.folder() / "lab.owner.json").write_text(left, encoding="utf-8")
    with bench.open(source) as table:
        assert "process 4711 on elsewhere had it and died" in table.takeover


def test_a_laser_that_stays_on_latches_the_bench(lab: Lab) -> None:
    table = bench.open(lab.source(laser="stays on"))
    table.light(5.0)
    with pytest.raises(LaserStillOnError):
        table.close()
    assert state.latched("lab") is not None


def test_a_silent_meter_counts_as_unsafe(lab: Lab) -> None:
    source = _limited(
        lab,
        "meter",
        faults={"meter": "silent"},
        meter={"low": 0, "high": 3, "oldest_s": 1},
    )
    with (
        pytest.raises(SafetyError, match=r"meter: no reading .*unplugged"),
        bench.open(source) as table,
    ):
        table.light(5.0)
        table.beat()
    assert state.latched("lab") is not None


SHORT = Patience(call_s=0.3)


@pytest.fixture(autouse=True)
def no_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "LINGER_S", 0.05)


def test_a_device_that_hangs_is_failed_and_the_others_close_in_order(lab: Lab) -> None:
    source = lab.source("shutter", "meter", camera="hang")
    with (
        pytest.raises(
            DeviceTimeoutError, match=r"camera: configure: no answer within 0\.3 s"
        ) as caught,
        bench.open(source, patience=SHORT) as table,
        table.dark_after(),
    ):
        table.light(5.0)
        table.configure_camera(exposure_s=0.05)
    assert lab.said()[-7:] == [
        "shutter closed", "laser off",
        "shutter close", "meter close", "slm close", "laser close", "laser close",
    ]  # fmt: skip
    assert "camera close" not in lab.said()
    assert "still busy with configure" in "".join(caught.value.__notes__)


def test_a_shutter_that_hangs_does_not_keep_the_laser_on(lab: Lab) -> None:
    with (
        pytest.raises(DeviceTimeoutError, match="shutter: open: no answer"),
        bench.open(lab.source("shutter", shutter="hang"), patience=SHORT) as table,
    ):
        table.light(5.0)
    assert lab.said().count("laser on") == 1
    assert lab.said()[-5:] == [
        "laser off", "camera close", "slm close", "laser close", "laser close",
    ]  # fmt: skip


def test_a_device_that_hangs_is_told_before_the_silence_it_caused(lab: Lab) -> None:
    source = lab.source(camera="hang")
    patience = Patience(call_s=0.8, heartbeat_s=0.3)
    with (
        pytest.raises(DeviceTimeoutError, match="camera: configure") as caught,
        bench.open(source, patience=patience) as table,
        table.dark_after(),
    ):
        table.light(5.0)
        table.configure_camera(exposure_s=0.05)
    assert "meanwhile: laser: the run was silent" in "".join(caught.value.__notes__)
    assert state.latched("lab") is None


def test_a_limited_meter_that_hangs_is_a_safety_stop(lab: Lab) -> None:
    source = _limited(
        lab,
        "meter",
        faults={"meter": "hang"},
        meter={"low": 0, "high": 3, "oldest_s": 1},
    )
    with (
        pytest.raises(SafetyError, match=r"meter: no reading .*no answer within 0\.3"),
        bench.open(source, patience=SHORT) as table,
    ):
        table.light(5.0)
        table.beat()
    assert state.latched("lab") is not None


def test_a_limited_meter_that_fails_at_an_exposure_is_a_safety_stop(lab: Lab) -> None:
    source = _limited(
        lab, "meter", faults={"meter": "silent"},
        meter={"low": 0, "high": 3, "oldest_s": 1},
    )  # fmt: skip
    with (
        pytest.raises(SafetyError, match="meter: no reading"),
        bench.open(source) as table,
        table.dark_after(),
    ):
        assert table.meter is not None
        table.meter.reading()
    with pytest.raises(LatchedError):
        bench.open(source)


def test_frames_without_light_are_explained_by_the_laser(lab: Lab) -> None:
    with (
        pytest.raises(SafetyError, match="faults=back reflection") as caught,
        bench.open(lab.source(laser="reflects")) as table,
        table.dark_after(),
    ):
        raise DeviceError("laser", "measure", "power_mw=0")
    assert isinstance(caught.value.__cause__, DeviceError)
    assert state.latched("lab") is not None


def test_the_time_of_a_call_is_in_the_bench_file(lab: Lab) -> None:
    assert lab.source().file.limits.call_s == 10.0
    source = _limited(lab, faults={"camera": "hang"}, call_s=0.2)
    with (
        pytest.raises(DeviceTimeoutError, match=r"no answer within 0\.2 s"),
        bench.open(source) as table,
    ):
        table.configure_camera(exposure_s=0.05)
    with pytest.raises(ProtocolError, match=r"call_s"):
        _limited(lab, call_s=61)


LIT = """
import signal, threading
from labctl import bench

# Whoever starts tests in the background has it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
with bench.open(bench.load("lab")) as table:
    table.light(5.0)
    print("lit", flush=True)
    threading.Event().wait()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_twice_leaves_the_laser_dark(lab: Lab) -> None:
    lab.source(camera="slow")  # takes its time to close: the second one comes then
    run = subprocess.Popen(  # noqa: S603 - our own interpreter and text
        [sys.executable, "-c", LIT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with run:
        assert run.stdout is not None
        assert run.stdout.readline() == "lit\n"
        run.send_signal(signal.SIGINT)
        due = time.monotonic() + 10.0
        while "camera close" not in lab.said():
            assert time.monotonic() < due, "does not close"
        assert "laser off" in lab.said()
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=10)
    assert run.returncode != 0
    assert "slm close" in lab.said(), "the others are closed all the same"
    assert "laser close" in lab.said()
    assert state.guards("lab") == {}
