"""The list of kinds is in order, and each can be described."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from labctl import cli
from labctl.calibrate import execute as room
from labctl.calibrate import store
from labctl.calibrate.execute import Outcome
from labctl.calibrate.kind import Finding
from labctl.calibrate.kinds import KINDS
from labctl.calibrate.stand import Stand
from labctl.errors import OutcomeError


def test_a_kind_comes_after_those_that_it_needs() -> None:
    names = [kind.name for kind in KINDS]
    assert len(names) == len(set(names))
    for at, kind in enumerate(KINDS):
        assert set(kind.needs) <= set(names[:at]), kind.name


def test_the_kinds_that_look_at_outputs_say_so() -> None:
    names = [kind.name for kind in KINDS if kind.looks_at_outputs]
    assert names == ["noise-floor", "drift"]


def test_every_kind_has_limits_and_belongs_to_devices() -> None:
    for kind in KINDS:
        assert kind.limits, kind.name
        assert kind.of, kind.name
        assert kind.valid_days > 0


def test_what_is_not_measurable_here_blocks_only_what_builds_on_it(
    make_bench: Callable[..., Path],
    calibrate: Callable[..., Outcome],
    known: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(stand: Stand, _limits: Mapping[str, float]) -> Finding:
        text = f"{stand.name}: nothing."
        raise OutcomeError(text)

    every = tuple(replace(kind, measure=fail) for kind in KINDS)
    monkeypatch.setattr(room, "KINDS", every)
    path = make_bench({"view": "image", "world.options.view": "image"})
    outcome = calibrate()
    ends = {row.kind: row.status for row in outcome.rows}
    far = {"mapping", "crosstalk", "wavefront"}
    assert list(ends) == [kind.name for kind in KINDS]
    assert {name for name, end in ends.items() if end == "not measurable here"} == far
    assert ends["camera"] == "failed"
    assert {ends[name] for name in set(ends) - far - {"camera"}} == {"skipped"}
    # With what a bench was told, only what builds on a failure is skipped.
    known(path, {"kind": "settle", "settle_s": 0.05})
    monkeypatch.setattr(room, "KINDS", every[3:])
    again = {row.kind: row.status for row in calibrate().rows}
    assert again == {
        "slm-phase": "failed",
        **dict.fromkeys(far, "not measurable here"),
        "noise-floor": "skipped",
        "drift": "failed",
    }


# ---- by command, with one in force ------------------------------------------------

IDLE = {"world.options.panel.zero_order": 1.0}
CURVE = {"kind": "slm-phase", "span_rad": 6.5}
NOTHING = "the panel does not modulate"
BROKEN: Mapping[str, tuple[str, Mapping[str, object], int, str]] = {
    "unplugged": (
        "camera",
        {"devices.camera.options.faults": [{"kind": "removed", "at_shot": 5}]},
        3,
        "camera: ",
    ),
    "interlock": (
        "camera",
        {"devices.laser.options.faults": [{"kind": "interlock", "after_s": 0.0}]},
        4,
        "interlock open",
    ),
    "blocked": (
        "settle",
        {"world.options.sensor.photons_per_s": 0.0},
        6,
        "settle: dark, or too few photons to be told from it: the laser emits",
    ),
    "too few photons": (
        "camera",
        {"world.options.sensor.photons_per_s": 4000.0},
        6,
        "camera: too few photons: light=",
    ),
    "a settle that does not modulate": ("settle", IDLE, 6, f"settle: {NOTHING}"),
    "a curve that does not modulate": ("slm-phase", IDLE, 6, f"slm-phase: {NOTHING}"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_what_goes_wrong_is_named_and_kept_and_leaves_the_one_in_force(
    make_bench: Callable[..., Path], known: Callable[..., None], name: str
) -> None:
    kind, changes, code, said = BROKEN[name]
    folder = make_bench(changes).parent
    known(folder / "bench.yaml", {"kind": "settle", "settle_s": 0.06}, CURVE)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    call = CliRunner()
    ended = call.invoke(cli.app, ["calibrate", "--bench", "lab", kind])
    call.invoke(cli.app, ["clear", "--bench", "lab", "--reason", "mended"])
    assert ended.exit_code == code, ended.output
    assert said in ended.stderr
    (kept,) = folder.glob("*-failed.yaml")
    told = YAML(typ="safe").load(kept.read_text(encoding="utf-8"))
    assert told["failed"] == kind
    assert said in told["why"]
    record = Path(told["record"]["file"])
    assert store.hash_of(record).sha256 == told["record"]["sha256"]
    assert {n: (folder / n).read_bytes() for n in before} == before
    assert len(list(folder.iterdir())) == len(before) + 1
