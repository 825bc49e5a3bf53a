"""What is due is measured in order, judged, installed or kept; all is restored."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from labctl import bench as benches
from labctl import cli
from labctl.bench import Bench
from labctl.calibrate import execute as room
from labctl.calibrate import store
from labctl.calibrate.execute import Options, Outcome, Row, prepare
from labctl.calibrate.kind import Figure, Finding, Kind, Merit, Quantity, Series
from labctl.calibrate.stand import Stand
from labctl.calibration import CalibrationRecord
from labctl.errors import (
    CalibrationError,
    DeviceError,
    InputError,
    InterlockError,
    OutcomeError,
)
from labctl.recording.reader import Record
from labctl.report import page
from labctl.run.progress import Silent

MakeBench = Callable[..., Path]
Calibrate = Callable[..., Outcome]


def quick(stand: Stand, limits: Mapping[str, float]) -> Finding:
    """Two frames, and a number from them."""
    stand.light(1.0)
    stand.configure(0.002)
    exposed = stand.expose(stand.flat().repeat(2, axis=0))
    mean = float(exposed.frames.mean())
    return Finding(
        values={"settle_s": 0.03},
        quantities={"mean_dn": Quantity(mean, 0.1)},
        merits=(Merit("spread", 0.5, 0.1, limits["spread"]),),
        figures=(
            Figure(
                "frames", "Frames", "Means.", "frame", "counts",
                (Series("mean", [0, 1], exposed.frames.mean(axis=(1, 2))),),
            ),
        ),
        conditions={"power_mw": 1.0},
    )  # fmt: skip


SETTLE = Kind("settle", "a test", ("slm",), quick, limits={"spread": 1.0})
CURVE = Kind(
    "slm-phase",
    "another test",
    ("slm", "laser"),
    lambda stand, limits: replace(quick(stand, limits), values={"span_rad": 6.5}),
    needs=("settle",),
    depends_on_wavelength=True,
    limits={"spread": 1.0},
)


@pytest.fixture(autouse=True)
def few_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, SETTLE, CURVE)


def use(monkeypatch: pytest.MonkeyPatch, *kinds: Kind) -> None:
    monkeypatch.setattr(room, "KINDS", kinds)


def in_force(path: Path) -> dict[str, CalibrationRecord]:
    return benches.load(path).records()


def ends(outcome: Outcome) -> list[tuple[str, str]]:
    return [(row.kind, row.status) for row in outcome.rows]


def test_what_is_missing_is_measured_in_order_and_then_holds(
    make_bench: MakeBench, calibrate: Calibrate
) -> None:
    path = make_bench()
    first = calibrate()
    assert ends(first) == [("settle", "passed"), ("slm-phase", "passed")]
    assert first.shots == {"calibrate": 4}
    records = in_force(path)
    assert records["settle"].serials == {"slm": "SIM-SLM-1"}
    assert records["settle"].geometry == {"slm": (32, 48)}
    assert records["slm-phase"].wavelength_nm == 780
    assert set(records["slm-phase"].parents) == {"settle"}
    assert records["settle"].figure_of_merit == {"spread": 0.5, "spread_error": 0.1}
    cost = records["settle"].conditions
    assert (cost["writes"], cost["exposures"]) == (2, 2)
    assert 0 < cost["took_s"] < 1
    assert calibrate().rows == ()


def test_a_record_points_to_its_raw_frames_by_hash(
    make_bench: MakeBench, calibrate: Calibrate
) -> None:
    path = make_bench()
    (row,) = calibrate("settle").rows
    pointed = in_force(path)["settle"].record
    assert row.record is not None
    assert pointed == store.hash_of(row.record)
    with Record.open(row.record) as record:
        assert record.kind == "calibrate"
        assert record.column("shots", "frames").shape == (2, 32, 48)
        assert record.column("patterns", "levels").shape == (1, 32, 48)
        assert record.column("shots_meta", "exposure_s").tolist() == [0.002] * 2
        assert record.result["passed"] is True


def test_parents_that_were_measured_again_make_their_children_due(
    make_bench: MakeBench, calibrate: Calibrate
) -> None:
    make_bench()
    calibrate()
    calibrate("settle")
    assert ends(calibrate()) == [("slm-phase", "passed")]


def test_outputs_that_move_with_the_mapping_make_due_what_looks_at_them(
    make_bench: MakeBench, calibrate: Calibrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing = {"matrix_px": [[32.0, 0.0], [0.0, 48.0]], "offset_px": [16.0, 24.0]}
    mapped = {"mirrored": False, **drawing}
    rate = {
        "common_percent_per_hour": 1.0,
        "element_percent_per_hour": 1.0,
        "holds_s": 9.0,
    }

    def finds(values: Mapping[str, Any]) -> Callable[..., Finding]:
        return lambda stand, limits: replace(quick(stand, limits), values=values)

    mapping = replace(SETTLE, name="mapping", measure=finds(mapped))
    drift = replace(SETTLE, name="drift", measure=finds(rate), looks_at_outputs=True)
    use(monkeypatch, SETTLE, mapping, drift)
    for changes, due in (({"drawing": drawing}, ["drift"]), ({}, [])):
        path = make_bench(changes)
        assert [status for _, status in ends(calibrate())] == ["passed"] * 3
        assert len(in_force(path)["drift"].parents) == len(due)
        calibrate("mapping")
        assert [row.kind for row in calibrate().rows] == due
        shutil.rmtree(path.parent)


def test_a_correction_that_moves_spots_makes_the_mapping_due(
    make_bench: MakeBench, calibrate: Calibrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped: dict[str, Any] = {
        "mirrored": False,
        "matrix_px": [[32.0, 0.0], [0.0, 48.0]],
        "offset_px": [16.0, 24.0],
    }
    shown = []

    def maps(stand: Stand, limits: Mapping[str, float]) -> Finding:
        shown.append(stand.correction_rad)
        return replace(quick(stand, limits), values=mapped)

    def corrects(stand: Stand, limits: Mapping[str, float]) -> Finding:
        found: dict[str, Any] = {"phase_rad": np.full(stand.panel, 0.25), "gain": 2.0}
        return replace(quick(stand, limits), values=found)

    mapping = replace(SETTLE, name="mapping", measure=maps)
    wavefront = replace(SETTLE, name="wavefront", measure=corrects)
    path = make_bench()
    # It does without one.
    use(monkeypatch, mapping)
    assert ends(calibrate()) == [("mapping", "passed")]
    assert in_force(path)["mapping"].parents == {}
    use(monkeypatch, wavefront, mapping)
    assert ends(calibrate("wavefront")) == [("wavefront", "passed")]
    with pytest.raises(CalibrationError, match="wavefront is in force, and it was mea"):
        in_force(path)
    assert ends(calibrate()) == [("mapping", "passed")]
    assert set(in_force(path)["mapping"].parents) == {"wavefront"}
    assert ends(calibrate()) == []
    # Another one makes it due again.
    calibrate("wavefront")
    assert ends(calibrate()) == [("mapping", "passed")]
    assert shown[0] is None
    assert all(each is not None and (each == 0.25).all() for each in shown[1:])
    # That of another panel is not applied.
    changed_to(path, make_bench, {"devices.slm.options.serial": "OTHER"})
    use(monkeypatch, mapping)
    assert ends(calibrate()) == [("mapping", "passed")]
    assert shown[-1] is None
    # That it is in force all the same makes nothing due: it could not be applied.
    assert ends(calibrate()) == []
    assert in_force(path)["mapping"].parents == {}


def changed_to(path: Path, make: MakeBench, change: Mapping[str, Any]) -> None:
    """Write the bench anew with a change, its records beside it."""
    kept = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    shutil.rmtree(path.parent)
    make(change)
    for name, raw in kept.items():
        if name != "bench.yaml":
            (path.parent / name).write_bytes(raw)


def test_another_device_or_wavelength_makes_due(
    make_bench: MakeBench, calibrate: Calibrate
) -> None:
    path = make_bench()
    calibrate()
    changes: list[tuple[dict[str, Any], list[str]]] = [
        ({"devices.laser.options.wavelength_nm": 532.0}, ["slm-phase"]),
        ({"devices.slm.options.serial": "OTHER"}, ["settle", "slm-phase"]),
    ]
    for change, due in changes:
        changed_to(path, make_bench, change)
        assert [row.kind for row in calibrate().rows] == due


def test_a_parent_that_does_not_hold_is_asked_for_first(
    make_bench: MakeBench, calibrate: Calibrate
) -> None:
    make_bench()
    with pytest.raises(CalibrationError, match="Measure it first: labctl calibrate se"):
        calibrate("slm-phase")


def test_a_bad_figure_is_kept_and_leaves_the_one_in_force(
    make_bench: MakeBench, calibrate: Calibrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_bench()
    calibrate()
    before = in_force(path)
    use(monkeypatch, replace(SETTLE, limits={"spread": 0.4}), CURVE)
    outcome = calibrate("settle")
    (row,) = outcome.rows
    assert (row.status, row.why) == ("failed", "spread=0.5, expected at most 0.4")
    with pytest.raises(OutcomeError, match=r"settle failed: spread=0\.5"):
        outcome.raise_failures()
    assert in_force(path) == before
    assert row.path is not None
    assert row.path.name.endswith("-failed.yaml")
    assert row.record is not None
    with Record.open(row.record) as record:
        assert record.status == "failed"


def test_what_builds_on_a_failure_is_skipped(
    make_bench: MakeBench, calibrate: Calibrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bench()

    def fail(stand: Stand, _limits: Mapping[str, float]) -> Finding:
        stand.expose(stand.flat())
        text = "settle: dark. Light it."
        raise OutcomeError(text)

    use(monkeypatch, replace(SETTLE, measure=fail), CURVE)
    outcome = calibrate()
    assert ends(outcome) == [("settle", "failed"), ("slm-phase", "skipped")]
    assert outcome.rows[0].why == "settle: dark. Light it."
    assert outcome.rows[0].path is not None
    assert "exposures: 1.0" in outcome.rows[0].path.read_text(encoding="utf-8")


def test_settings_are_restored_also_after_a_failure(
    make_bench: MakeBench, calibrate: Calibrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bench()
    seen: list[tuple[object, ...]] = []
    closed = Bench._closed

    def close(bench: Bench) -> list[BaseException]:
        settings = bench.camera.settings()
        lit = bench.laser.is_emitting()
        seen.append((settings["exposure_s"], settings["region"], lit))
        return closed(bench)

    def unplugged(stand: Stand, _limits: Mapping[str, float]) -> Finding:
        stand.light(2.0)
        stand.configure(0.005)
        text = "no answer"
        raise DeviceError("camera", "frame", text)

    monkeypatch.setattr(Bench, "_closed", close)
    calibrate("settle")
    use(monkeypatch, replace(SETTLE, measure=unplugged))
    with pytest.raises(DeviceError, match="no answer"):
        calibrate("settle")
    # As the simulated camera is after opening.
    assert seen == [(0.001, [0, 0, 32, 48], False)] * 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DeviceError("camera", "frame", "no answer"), 3),
        (InterlockError("laser: interlock open. Close it."), 4),
        (ZeroDivisionError("a bug"), 1),
    ],
    ids=["device", "interlock", "bug"],
)
def test_what_ends_a_measurement_is_kept_and_leaves_the_one_in_force(
    make_bench: MakeBench,
    calibrate: Calibrate,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: int,
) -> None:
    folder = make_bench().parent
    calibrate("settle")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def end(stand: Stand, _limits: Mapping[str, float]) -> Finding:
        stand.expose(stand.flat())
        raise error

    use(monkeypatch, replace(SETTLE, measure=end))
    call = CliRunner()
    ended = call.invoke(cli.app, ["calibrate", "--bench", "lab", "settle"])
    assert ended.exit_code == code
    (kept,) = [path for path in folder.iterdir() if path.name not in before]
    assert kept.name.endswith("-failed.yaml")
    assert kept.name in ended.stdout
    told = YAML(typ="safe").load(kept.read_text(encoding="utf-8"))
    assert (told["failed"], told["why"]) == ("settle", str(error))
    assert told["serials"] == {"slm": "SIM-SLM-1"}
    record = Path(told["record"]["file"])
    assert store.hash_of(record).sha256 == told["record"]["sha256"]
    with Record.open(record) as opened:
        assert opened.status in {"failed", "stopped"}
        assert opened.lengths["shots"] == 1
    assert {n: (folder / n).read_bytes() for n in before} == before
    call.invoke(cli.app, ["clear", "--bench", "lab", "--reason", "closed"])
    # A check installs nothing, and so leaves nothing.
    again = call.invoke(cli.app, ["calibrate", "--bench", "lab", "settle", "--check"])
    assert again.exit_code == code
    call.invoke(cli.app, ["clear", "--bench", "lab", "--reason", "closed"])
    assert {path.name for path in folder.iterdir()} == {*before, kept.name}


def test_a_failure_that_cannot_be_kept_is_told_with_what_ended_it(
    make_bench: MakeBench, calibrate: Calibrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_bench().parent

    def end(stand: Stand, _limits: Mapping[str, float]) -> Finding:
        del stand
        text = "no answer"
        raise DeviceError("camera", "frame", text)

    def full(path: Path, _raw: bytes) -> None:
        text = f"{path}: cannot be written (disk full). Make room there."
        raise CalibrationError(text)

    use(monkeypatch, replace(SETTLE, measure=end))
    monkeypatch.setattr(store, "_write_new", full)
    with pytest.raises(DeviceError, match="no answer") as caught:
        calibrate("settle")
    (note,) = caught.value.__notes__
    assert note.startswith("and then: ")
    assert "disk full" in note
    assert [path.name for path in folder.iterdir()] == ["bench.yaml"]


def test_who_ends_a_measurement_does_not_make_it_fail(
    make_bench: MakeBench, calibrate: Calibrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_bench().parent

    def end(stand: Stand, _limits: Mapping[str, float]) -> Finding:
        stand.expose(stand.flat())
        raise KeyboardInterrupt

    use(monkeypatch, replace(SETTLE, measure=end))
    with pytest.raises(KeyboardInterrupt):
        calibrate("settle")
    assert [path.name for path in folder.iterdir()] == ["bench.yaml"]


def test_a_check_installs_nothing_and_says_what_moved(
    make_bench: MakeBench, calibrate: Calibrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_bench()
    calibrate("settle")
    before = sorted(path.parent.iterdir())
    same = calibrate(check=True)
    assert ends(same) == [("settle", "passed")]

    def moved(stand: Stand, limits: Mapping[str, float]) -> Finding:
        return replace(quick(stand, limits), quantities={"mean_dn": Quantity(9.0, 0.1)})

    use(monkeypatch, replace(SETTLE, measure=moved))
    outcome = calibrate(check=True)
    assert ends(outcome) == [("settle", "moved")]
    assert outcome.rows[0].why.endswith("is 9 ± 0.1")
    assert sorted(path.parent.iterdir()) == before
    with pytest.raises(OutcomeError):
        outcome.raise_failures()


def test_a_check_that_has_nothing_to_compare_says_so(
    make_bench: MakeBench, calibrate: Calibrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bench()
    calibrate("settle")

    def other(stand: Stand, limits: Mapping[str, float]) -> Finding:
        return replace(quick(stand, limits), quantities={"span": Quantity(6.5, 0.1)})

    use(monkeypatch, replace(SETTLE, measure=other))
    (row,) = calibrate(check=True).rows
    assert row.status == "moved"
    assert "nothing can be compared" in row.why


def test_what_looks_at_outputs_is_of_those_that_a_run_has(
    make_bench: MakeBench, calibrate: Calibrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_bench()
    outputs = replace(CURVE, looks_at_outputs=True)
    use(monkeypatch, SETTLE, outputs)
    calibrate()
    assert in_force(path)["slm-phase"].conditions["bin_rows"] == 3
    assert calibrate().rows == ()
    text = path.read_text(encoding="utf-8")
    changed, count = re.subn(r"bins:\n *- 3\n *- 3", "bins: [4, 4]", text)
    assert count == 1
    path.write_text(changed, encoding="utf-8")
    (row,) = calibrate("slm-phase", check=True).rows
    assert row.status == "moved"
    assert "bin_rows=3, expected 4; bin_columns=3, expected 4 (bench file)" in row.why
    assert ends(calibrate()) == [("slm-phase", "passed")]
    assert in_force(path)["slm-phase"].conditions["bin_rows"] == 4


def test_a_check_of_what_is_not_in_force_says_so(
    make_bench: MakeBench, calibrate: Calibrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bench()
    use(monkeypatch, SETTLE)
    (row,) = calibrate("settle", check=True).rows
    assert row.status == "moved"
    assert "no settle is in force. Measure it: labctl calibrate settle" in row.why


def test_a_check_does_not_compare_what_the_bench_file_no_longer_asks_for(
    make_bench: MakeBench, calibrate: Calibrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bench()
    use(monkeypatch, SETTLE)
    calibrate("settle")
    other = replace(SETTLE, asked=lambda _, __: "regions=[2, 2], expected [1, 2].")
    use(monkeypatch, other)
    (row,) = calibrate("settle", check=True).rows
    assert row.status == "moved"
    assert "in another way. regions=[2, 2], expected [1, 2]. Measure" in row.why


def test_what_cannot_be_measured_here_blocks_nothing_else(
    make_bench: MakeBench, calibrate: Calibrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bench()
    images = replace(SETTLE, name="camera", views=("image",))
    weak = replace(SETTLE, name="laser-power", roles=("attenuator",))
    use(monkeypatch, images, weak, SETTLE)
    outcome = calibrate()
    assert [row.status for row in outcome.rows] == ["not measurable here"] * 2 + [
        "passed"
    ]
    assert outcome.rows[0].why == "needs view image, the bench has far_field"
    assert outcome.rows[1].why == "the bench has no attenuator"


def test_a_bench_says_which_physics_it_lacks(
    make_bench: MakeBench, calibrate: Calibrate
) -> None:
    make_bench({"calibrate": {"lacks": {"slm-phase": "no light in this room"}}})
    rows = calibrate().rows
    assert [row.status for row in rows] == ["passed", "not measurable here"]
    assert rows[1].why == "no light in this room"
    shutil.rmtree("calibrations/lab")
    make_bench({"calibrate": {"lacks": {"slm-fase": "no light"}}})
    with pytest.raises(
        InputError, match=r"calibrate\.lacks\.slm-fase: slm-fase is not known"
    ):
        prepare(Options(bench="lab"))


def test_a_person_is_asked_to_move_the_camera(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bench({"calibrate": {"views": {"image": "Flip mirror M2 in."}}})
    use(monkeypatch, replace(SETTLE, views=("image",)))
    job = prepare(Options(bench="lab"))
    asked = []

    def answer(question: str) -> bool:
        asked.append(question)
        return len(asked) > 1

    refused = room.execute(job, Silent(), answer)
    assert ends(refused) == [("settle", "not measurable here")]
    assert ends(room.execute(job, Silent(), answer)) == [("settle", "passed")]
    assert asked[0] == "Move the camera to view image: Flip mirror M2 in. Done?"


@pytest.mark.slow
@pytest.mark.parametrize("view", ["far_field", "image"])
def test_a_person_who_says_so_is_not_taken_at_their_word(
    make_bench: MakeBench,
    known: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    view: str,
) -> None:
    path = make_bench(
        {
            "view": view,
            "world.options.view": view,
            "world.options.sensor.photons_per_s": 2e8,
            "calibrate.views": {"through_medium": "Flip mirror M2 out."},
        }
    )
    mapped = {"matrix_px": [[32.0, 0.0], [0.0, 48.0]], "offset_px": [16.0, 24.0]}
    known(
        path,
        {"kind": "slm-phase", "span_rad": 6.4},
        {"kind": "mapping", "mirrored": False, **mapped},
    )
    # Of the view that it is in, whatever the bench file calls it.
    kind = replace(SETTLE, name="crosstalk", needs=("mapping",), measure=quick)
    found = {"sigma_px": 0.0, "most_px": 0.1}
    use(
        monkeypatch,
        replace(
            kind,
            views=("through_medium",),
            measure=lambda stand, limits: replace(quick(stand, limits), values=found),
        ),
    )
    (row,) = room.execute(prepare(Options(bench="lab")), Silent(), lambda _: True).rows
    if view == "far_field":
        assert (row.why, row.status) == ("", "passed")
    else:
        assert row.status == "failed"
        assert "% of the light goes where mapping says that a tilt sends it" in row.why


def test_limits_of_the_bench_file_replace_the_built_in(
    make_bench: MakeBench, calibrate: Calibrate
) -> None:
    make_bench({"calibrate": {"limits": {"settle": {"spread": 0.1}}}})
    (row,) = calibrate("settle").rows
    assert row.status == "failed"


def test_a_limit_that_no_kind_has_is_refused(
    make_bench: MakeBench, calibrate: Calibrate
) -> None:
    make_bench({"calibrate": {"limits": {"settle": {"spred": 0.1}}}})
    with pytest.raises(InputError, match=r"limits\.settle\.spred: spred is not known"):
        calibrate("settle")


def test_a_kind_that_does_not_exist_is_refused(make_bench: MakeBench) -> None:
    make_bench()
    with pytest.raises(InputError, match="KIND=lut, expected one of settle, slm-phase"):
        prepare(Options(kinds=("lut",), bench="lab"))


def test_the_table_names_what_judged_and_how_long_it_holds() -> None:
    merit = Merit("rms_rad", 0.004, 0.001, 0.012)
    rows = (
        Row("slm-phase", "passed", merits=(merit,), valid_until="2031-05-02"),
        Row("mapping", "not measurable here", "needs view far_field"),
    )
    lines = Outcome("lab", rows).summary.splitlines()
    assert lines[1].split("  ")[0] == "slm-phase"
    assert "rms_rad 0.004 ± 0.001 (<= 0.012)" in lines[1]
    assert lines[1].endswith("2031-05-02")
    assert lines[2].endswith("needs view far_field")


def test_the_command_line_prints_the_table_and_exits_6_on_a_failure(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bench()
    call = CliRunner()
    good = call.invoke(cli.app, ["calibrate", "--bench", "lab", "--json"])
    assert good.exit_code == 0, good.output
    last = json.loads(good.stdout.splitlines()[-1])
    assert [each["status"] for each in last["calibrations"]] == ["passed"] * 2
    use(monkeypatch, replace(SETTLE, limits={"spread": 0.1}))
    bad = call.invoke(cli.app, ["calibrate", "settle", "--bench", "lab"])
    assert bad.exit_code == 6
    assert "expected at most 0.1" in bad.stderr
    assert "failed" in bad.stdout
    wrong = call.invoke(cli.app, ["calibrate", "lut", "--bench", "lab"])
    assert wrong.exit_code == 2
    words = "bench lab: the beam rests first."
    monkeypatch.setattr(
        Bench, "_recall_light", lambda bench: setattr(bench, "takeover", words)
    )
    told = call.invoke(cli.app, ["calibrate", "--check", "--bench", "lab"])
    assert words in told.stdout + told.stderr


def test_a_figure_may_lack_the_points_of_a_series(
    make_bench: MakeBench,
    calibrate: Calibrate,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    make_bench()

    def sparse(stand: Stand, limits: Mapping[str, float]) -> Finding:
        found = quick(stand, limits)
        (drawn,) = found.figures
        lacking = (Series("lost", [], []), *drawn.series)
        figures = (replace(drawn, series=lacking), replace(drawn, name="no", series=()))
        return replace(found, figures=figures)

    use(monkeypatch, replace(SETTLE, measure=sparse))
    (row,) = calibrate("settle").rows
    assert row.status == "passed"
    assert row.record is not None
    page.write(row.record, tmp_path / "page.html", tmp_path / "png")
    assert (tmp_path / "png" / "frames.png").stat().st_size > 1000


def test_a_report_shows_the_figures_of_a_calibration(
    make_bench: MakeBench, calibrate: Calibrate, tmp_path: Path
) -> None:
    make_bench()
    (row,) = calibrate("settle").rows
    assert row.record is not None
    written = page.write(row.record, tmp_path / "page.html", tmp_path / "png")
    text = written.read_text(encoding="utf-8")
    assert "Calibration settle" in text
    assert "labctl calibrate settle --bench lab" in text
    assert (tmp_path / "png" / "frames.png").stat().st_size > 1000
