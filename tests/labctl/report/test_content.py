import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labctl.recording.header import Header
from labctl.recording.layout import (
    ShotSpec,
    comparison_layout,
    evaluate_layout,
    train_layout,
)
from labctl.recording.reader import Record
from labctl.recording.writer import Recorder
from labctl.report import content
from labctl.report.section import Page, Section


def read(path: Path) -> Page:
    with Record.open(path) as record:
        return content.read(record)


def section(page: Page, name: str) -> Section:
    return next(part for part in page.sections if part.name == name)


@pytest.mark.parametrize(
    ("result", "line"),
    [
        ({}, "No score was measured."),
        ({"metric": "accuracy", "score_test": None}, "No score was measured."),
        (
            {"metric": "nrmse", "direction": "down", "score_test": 0.25},
            "nrmse on the test split: 0.25 trained device. Lower is better.",
        ),
        (
            {"metric": "accuracy", "score_test": 0.9, "score_readout": 0.5},
            "accuracy on the test split: 0.5 readout only, 0.9 trained device.",
        ),
    ],
)
def test_headline_names_every_score_that_was_measured(
    result: dict[str, Any], line: str
) -> None:
    assert content.headline("train", result) == line


def test_a_study_says_in_a_line_how_many_claims_held() -> None:
    result = {"claims": {"held": 3, "did not hold": 1}, "size": "full"}
    assert content.headline("study", result) == (
        "3 of 4 claims held; 1 did not hold (size full)."
    )


def test_two_claims_hold_and_one_holds_under_conditions() -> None:
    result = {"claims": {"held": 1, "holds under conditions": 2}, "size": "full"}
    assert content.headline("study", result).startswith(
        "1 of 3 claims held; 2 hold under conditions"
    )
    result["claims"] = {"held": 1, "holds under conditions": 1}
    assert "1 holds under conditions" in content.headline("study", result)


def test_a_scan_says_its_ends_in_a_line() -> None:
    result = {
        "unit": "electron",
        "sweep": "reservoir.power_mw",
        "values": [0.5, 1, 2],
        "mean_outputs": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.5]],
    }
    assert content.headline("scan", result) == (
        "3 values: mean output 1.5 electrons at reservoir.power_mw=0.5, 5.75 at 2."
    )
    assert content.headline("scan", {}) == "No output was measured."


@pytest.mark.parametrize(
    ("value", "error", "told"),
    [
        (0.012552, 0.05397, "0.013 ± 0.054"),
        (-1e-9, 0.00015, "0.00000 ± 0.00015"),
        (15968.63, 46.0, "15969 ± 46"),
        (15968.63, 460.0, "15970 ± 460"),
        (9.22711, None, "9.227"),
        (9.22711, float("nan"), "9.227"),
        (None, None, "none"),
        (float("nan"), 0.1, "nan ± 0.1"),
        (3.0, 1e-12, "3 ± 1e-12"),
    ],
)
def test_a_number_has_the_digits_of_its_error(
    value: float | None, error: float | None, told: str
) -> None:
    assert content._measured(value, error) == told


def test_a_comparison_says_in_a_line_what_it_cost_and_what_failed() -> None:
    result = {"jobs": 4, "failed": 1, "shots": 90, "metric": "accuracy"}
    assert content.headline("comparison", result) == (
        "4 trainings, 1 of them failed, on 90 shots; methods are compared by accuracy "
        "below."
    )


def test_score_of_an_evaluation_is_the_one_measured_again() -> None:
    result = {"metric": "accuracy", "score_then": 0.7, "score_test": 0.6}
    assert content.headline("evaluate", result) == (
        "accuracy on the test split: 0.7 when it was trained, 0.6 measured again."
    )


def test_a_model_from_before_the_end_is_told_beside_its_score_and_once(
    make_header: Callable[..., Header], tmp_path: Path
) -> None:
    path, said = tmp_path / "run.h5", "the training did not end, so what is measured"
    layout = evaluate_layout(ShotSpec(15, 6), n_predictions=2, n_targets=1)
    with Recorder.create(
        path, layout=layout, header=make_header("evaluate", {})
    ) as recorder:
        recorder.set_result({"score_test": 0.6, "unfinished": said})
    result = section(read(path), "result")
    assert result.sentences[-1] == f"Source: {said}"
    assert result.table is not None
    assert said not in str(result.table.rows)
    assert content._halfway({"unfinished": ""}) == ""


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (("up", 0.5, 0.8, 0.9), "75 % of the room"),
        (("down", 0.5, 0.3, 0.1), "50 % of the room"),
        (("up", 0.5, 0.4, 0.9), "-25 % of the room"),
        (("up", 0.9, 0.9, 0.9), "nothing to gain"),
        (("down", 0.1, 0.1, 0.2), "nothing to gain"),
    ],
)
def test_gain_is_told_against_readout_and_oracle(
    result: tuple[str, float, float, float], told: str
) -> None:
    direction, readout, test, oracle = result
    found = {
        "direction": direction,
        "score_readout": readout,
        "score_test": test,
        "score_oracle": oracle,
    }
    assert told in content._gain(found)
    assert content._gain({**found, "score_oracle": None}) == ""


def test_page_of_a_training_run_has_its_sections_in_order(
    training_record: Path,
) -> None:
    page = read(training_record)
    assert [part.name for part in page.sections] == [
        "result",
        "what",
        "training",
        "device",
        "shots",
        "calibrations",
        "events",
        "repeat",
    ]
    assert page.simulated
    assert page.status == "complete"


def test_curves_of_a_training_bear_the_name_of_its_metric(
    tmp_path: Path, make_header: Callable[..., Header]
) -> None:
    path = tmp_path / "series.h5"
    layout = train_layout(ShotSpec(15, 6))
    header = make_header("train", {"model": []})
    with Recorder.create(path, layout=layout, header=header) as recorder:
        rows = {
            column.name: np.ones(3, column.dtype)
            for column in layout.table("training").columns
            if not column.filled
        }
        recorder.append("training", **rows)
        recorder.commit()
        running = section(read(path), "training").drawings[0]
        recorder.set_result({"metric": "nrmse", "direction": "down"})
    ended = section(read(path), "training").drawings[0]
    assert "score of the batch" in running.alt
    assert "nrmse of the batch" in ended.alt
    assert ended.title == "Loss and nrmse"


def test_ledger_counts_refunded_shots_apart(training_record: Path) -> None:
    drawing = section(read(training_record), "shots").drawings[0]
    assert drawing.alt.endswith("refunded 6.")


def test_theta_is_shown_as_its_encoding_lays_it_out(training_record: Path) -> None:
    first, second, *_ = section(read(training_record), "device").drawings
    assert first.alt.startswith("Images: theta, 3 x 5, ")
    assert "modulo 2π" in first.alt
    assert second.alt.startswith("Images: theta, 30, -1 to 1 (coefficient")
    assert "at step 400" in first.caption


def test_frames_are_shown_where_they_were_kept(
    training_record: Path, marked_record: Path
) -> None:
    kept = section(read(training_record), "device").drawings[-1]
    binned = section(read(marked_record), "device").drawings[-1]
    assert "frame, 6 x 9" in kept.alt
    assert "outputs, 2 x 3" in binned.alt


def test_one_exposure_of_each_purpose_is_shown_the_newest_first(
    training_record: Path,
) -> None:
    drawings = section(read(training_record), "device").drawings[2:]
    assert drawings[0].name == "shot"
    assert len({drawing.title for drawing in drawings}) == len(drawings) == 3


def test_the_course_of_a_score_is_compared_with_its_ends(
    training_record: Path,
) -> None:
    drawn = section(read(training_record), "training").drawings[0]
    assert "Dashed, on the test split: readout only " in drawn.caption
    assert "oracle (true gradient) " in drawn.alt


def test_scan_is_sorted_and_averaged_over_patterns(scan_record: Path) -> None:
    drawing = section(read(scan_record), "scan").drawings[0]
    assert "5 values of reservoir.power_mw" in drawing.alt


def test_a_scan_lists_neither_all_outputs_nor_what_it_swept(
    scan_record: Path,
) -> None:
    page = read(scan_record)
    result, what = section(page, "result").table, section(page, "what").table
    assert result is not None
    assert what is not None
    assert "values" in {row[0] for row in result.rows}
    assert "mean_outputs" not in {row[0] for row in result.rows}
    # It stands there as the sweep: the record has the first value of it.
    heads = {row[0] for row in what.rows}
    assert ("sweep", "reservoir.power_mw") in what.rows
    assert "exposure_s" in heads
    assert "power_mw" not in heads


def test_repeats_are_named_by_what_was_measured(evaluation_record: Path) -> None:
    page = read(evaluation_record)
    assert (
        section(page, "evaluation")
        .drawings[0]
        .alt.startswith("Curves over repeat: accuracy goes from 0.7 to 0.72")
    )
    assert section(page, "result").sentences[1] == (
        "Measured 3 times, from 0.7 to 0.75; this is the mean."
    )


def test_a_calibration_says_verdict_and_merits_in_a_line(
    write_record: Callable[..., Path],
) -> None:
    page = read(write_record("calibrate"))
    assert section(page, "result").sentences == ("Failed: too slow", "A remark.")
    (drawing,) = section(page, "device").drawings
    assert drawing.caption.startswith("Shot 1, ")
    assert "levels shown, 4 x 6" in drawing.alt
    assert "32 x 48 μm" in drawing.alt


def test_confusion_counts_each_answer(evaluation_record: Path) -> None:
    drawing = section(read(evaluation_record), "evaluation").drawings[-1]
    assert drawing.alt == "Table of 40 answers, 32 of them right."


def test_calibrations_tell_their_age(training_record: Path) -> None:
    table = section(read(training_record), "calibrations").table
    assert table is not None
    (row,) = table.rows
    assert row[:3] == ("slm-phase", "slm-phase.yaml", "2026-01-02 10:00:00 UTC")
    assert row[3].endswith(" days")
    assert row[5] == "curve_rad 256 numbers, 0 to 6, span_rad 6.3"


def test_age_of_what_has_no_date_is_not_known() -> None:
    moment = content._time("2026-01-02T10:00:00")
    assert content._age(moment, content._time("yesterday")) == "not known"
    assert content._age(content._time("2026-01-03T22:00:00Z"), moment) == "1.5 days"


def test_command_to_repeat_names_bench_and_seed(training_record: Path) -> None:
    listings = dict(section(read(training_record), "repeat").listings)
    told = "the protocol with every default and override"
    command = listings[f"Command, with {told} saved as protocol.yaml"]
    assert command == "labctl run protocol.yaml --bench sim --seed 7 --simulate"
    assert json.loads(listings[told.capitalize()])["seed"] == 7


def test_a_bench_that_is_simulated_by_itself_needs_no_word_for_it(
    tmp_path: Path, make_header: Callable[..., Header]
) -> None:
    path = tmp_path / "run.h5"
    header = make_header("train", {"model": []})
    header = replace(header, bench_text="name: sim\nworld: {driver: sim.world}\n")
    Recorder.create(path, layout=train_layout(ShotSpec(15, 6)), header=header).close()
    listings = dict(section(read(path), "repeat").listings)
    (command,) = (text for told, text in listings.items() if told.startswith("Command"))
    assert command == "labctl run protocol.yaml --bench sim --seed 7"


def test_a_comparison_says_who_recovers_most(
    tmp_path: Path, make_header: Callable[..., Header]
) -> None:
    path = tmp_path / "compared.h5"
    plan = comparison_layout()
    header = replace(make_header("comparison", {}), calibrations={})
    with Recorder.create(path, layout=plan, header=header) as recorder:
        for method, mean, gain in (("readout", 0.3, 0.0), ("mine", 0.6, 0.75)):
            row: dict[str, list[Any]] = {
                column.name: [0.0]
                for column in plan.table("summary").columns
                if not column.filled
            }
            row |= {"task": ["digits"], "method": [method], "budget": [4000]}
            row |= {"seeds": [2], "reached": [0], "mean": [mean], "gain": [gain]}
            row |= {"mean_low": [mean - 0.1], "mean_high": [mean + 0.1]}
            row |= {"over_readout_low": [gain], "over_readout_high": [gain + 0.1]}
            row |= {"shots_to_target": [np.inf], "gain_low": [np.nan]}
            recorder.append("summary", **row)
        recorder.set_result({"jobs": 4, "shots": 90})
        recorder.commit()
    page = read(path)
    found = section(page, "comparison")
    told = section(page, "result").sentences
    assert (
        "Most of the oracle's gain on digits with 4000 shots: 0.750, by mine." in told
    )
    (line,) = section(page, "calibrations").sentences
    assert line.startswith("Each training applied its own")
    assert found.table is not None
    told = ("0.600 [0.500, 0.700]", "0.750", "0.000 [0.750, 0.850]", "0", "> 4000")
    assert found.table.rows[1][4:9] == told
    assert "mine 0.6 [0.5, 0.7]" in found.drawings[0].alt


def test_long_lists_of_numbers_are_summed_up() -> None:
    assert content._shown([1.5, 2, 3]) == "1.5; 2; 3"
    assert content._shown([float(n) for n in range(36)]) == "36 numbers, 0 to 35"
    assert content._shown(["a"] * 36).count("a") == 36
