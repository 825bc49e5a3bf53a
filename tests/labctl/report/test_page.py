import base64
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest
from typing_extensions import override

from labctl.errors import InputError
from labctl.recording.header import Header
from labctl.recording.layout import (
    Kind,
    ShotSpec,
    calibrate_layout,
    evaluate_layout,
    scan_layout,
    study_layout,
    train_layout,
)
from labctl.recording.reader import Record
from labctl.recording.writer import Recorder
from labctl.report import page

VOID = {"meta", "link", "img", "br"}


class Outline(HTMLParser):
    """Tags, attributes and text of a page; refuses one that is not well nested."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[str] = []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    @override
    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def outline(path: Path) -> Outline:
    parsed = Outline()
    parsed.feed(path.read_text(encoding="utf-8"))
    assert parsed.open == []
    return parsed


def test_training_page_tells_the_run(training_page: Path) -> None:
    text = outline(training_page).text
    for expected in (
        "Digits through $9$ bins",
        "SIMULATED",
        "devices did not answer",
        "accuracy on the test split: 0.512 readout only, 0.788 trained device, "
        "0.874 oracle (true gradient). Higher is better.",
        "The trained device took 76 % of the room",
        "labctl run protocol.yaml --bench sim --seed 7",
        "frame stale",
        "slm-phase.yaml",
        "labctl SimSLM 1",
        "kind: train",
    ):
        assert expected in text


def test_training_page_has_its_figures(training_page: Path) -> None:
    names = {path.stem for path in (training_page.parent / "figures").iterdir()}
    assert names == {
        "scores",
        "training",
        "validation",
        "cosine",
        "theta-0",
        "theta-1",
        "shot",
        "shot-probe",
        "shot-train",
        "ledger",
    }
    for path in (training_page.parent / "figures").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")


def test_page_needs_nothing_from_outside(training_page: Path) -> None:
    parsed = outline(training_page)
    assert not parsed.all("script")
    assert not parsed.all("link")
    places = [tag["src"] for tag in parsed.all("img")]
    assert len(places) == 20
    for place in places:
        kind, _, content = place.partition(",")
        assert kind == "data:image/svg+xml;base64"
        root = ElementTree.fromstring(base64.b64decode(content))  # noqa: S314 - ours
        assert root.tag.endswith("svg")
    assert all(tag["href"].startswith("#") for tag in parsed.all("a"))


def test_page_forbids_scripts_and_allows_its_own_style_only(
    training_page: Path,
) -> None:
    html = training_page.read_text(encoding="utf-8")
    policy = outline(training_page).all("meta")[1]["content"]
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style is not None
    digest = hashlib.sha256(style.group(1).encode()).digest()
    assert "default-src 'none'" in policy
    assert f"style-src 'sha256-{base64.b64encode(digest).decode()}'" in policy
    assert "style=" not in html.replace(style.group(0), "")


def test_page_can_be_read_without_seeing_it(training_page: Path) -> None:
    parsed = outline(training_page)
    assert all(len(tag["alt"]) > 10 for tag in parsed.all("img"))
    assert len(parsed.all("h1")) == 1
    assert parsed.all("html")[0]["lang"] == "en"
    sections = {tag["id"] for tag in parsed.all("section")}
    assert {tag["href"][1:] for tag in parsed.all("a")} == sections


def test_page_follows_light_and_dark(training_page: Path) -> None:
    html = training_page.read_text(encoding="utf-8")
    assert "@media screen and (prefers-color-scheme: dark) { .on-dark" in html
    assert "@media print" in html
    shown = [tag["class"] for tag in outline(training_page).all("img")]
    assert shown == ["on-light", "on-dark"] * 10


def test_same_record_gives_the_same_page(empty_record: Path, tmp_path: Path) -> None:
    first = page.write(empty_record, tmp_path / "a.html").read_bytes()
    again = page.write(empty_record, tmp_path / "b.html").read_bytes()
    assert first == again


def test_record_without_shots_says_so(empty_record: Path, tmp_path: Path) -> None:
    text = outline(page.write(empty_record, tmp_path / "run.html")).text
    assert "There is no result: the status of this record is failed." in text
    assert "No step was recorded yet." in text
    assert "No shot was recorded yet." in text


def test_a_page_is_made_without_torch(training_record: Path, tmp_path: Path) -> None:
    # Its checkpoint has what the device learned.
    code = (
        "import sys; from labctl.report import page; "
        f"page.write({str(training_record)!r}, {str(tmp_path / 'run.html')!r}); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
    assert "What the device learned" in outline(tmp_path / "run.html").text


def test_evaluation_page_tells_then_and_now(
    evaluation_record: Path, tmp_path: Path
) -> None:
    parsed = outline(page.write(evaluation_record, tmp_path / "run.html"))
    assert "0.74 when it was trained, 0.723 measured again" in parsed.text
    assert "Which class was taken for which" in parsed.text
    assert "Score of each repeat" in parsed.text


def test_scan_page_shows_outputs_over_the_setting(
    scan_record: Path, tmp_path: Path
) -> None:
    parsed = outline(page.write(scan_record, tmp_path / "run.html"))
    alts = [tag["alt"] for tag in parsed.all("img")]
    assert "Curves of 6 outputs at 5 values of reservoir.power_mw." in alts


def test_refuses_what_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no record")
    with pytest.raises(InputError, match="expected a record"):
        page.write(path, tmp_path / "run.html")
    assert not (tmp_path / "run.html").exists()


def test_says_that_a_folder_is_no_record(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folder, expected a record"):
        page.write(tmp_path, tmp_path / "run.html")


def test_refuses_a_place_that_cannot_be_written(
    empty_record: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"cannot be written .* Choose another"):
        page.write(empty_record, tmp_path / "no" / "folder" / "run.html")


def test_refuses_to_replace_the_record_by_its_page(empty_record: Path) -> None:
    before = empty_record.read_bytes()
    with pytest.raises(InputError, match="the record itself"):
        page.write(empty_record, empty_record)
    assert empty_record.read_bytes() == before


def test_refuses_to_replace_another_record(
    empty_record: Path, training_record: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.h5"
    shutil.copy(training_record, other)
    with pytest.raises(InputError, match=r"an HDF5 file, .* Change --out"):
        page.write(empty_record, other)
    assert other.read_bytes() == training_record.read_bytes()


@pytest.mark.parametrize("name", ["run.h5.lock", "other.reserve"])
def test_refuses_to_replace_what_belongs_to_a_record(
    empty_record: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"files beside a record, expected \.html"):
        page.write(empty_record, tmp_path / name)
    assert not (tmp_path / name).read_bytes()


def test_numbers_that_are_none_are_gaps_and_sizes_of_nothing_no_scale(
    scan_record: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run.h5"
    shutil.copy(scan_record, copy)
    with h5py.File(copy, "r+") as file:
        file["entry/points/outputs"][...] = np.nan
        file["entry/shots/outputs"][...] = np.nan
        file["entry/reservoir/region"][...] = 0
    alts = [
        tag["alt"] for tag in outline(page.write(copy, tmp_path / "a.html")).all("img")
    ]
    assert any("outputs, 2 x 3, no number (electrons a bin)" in alt for alt in alts)
    assert not any("μm" in alt.partition("outputs")[2] for alt in alts)
    with h5py.File(copy, "r+") as file:
        file["entry/reservoir/macropixels"][...] = 0
    with pytest.raises(InputError, match=r"shape \(0,0\), expected what .* kind scan"):
        page.write(copy, tmp_path / "a.html")


def no_record(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["picture"] = np.eye(3)


def loop(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["entry"]
        file["entry"] = h5py.SoftLink("/entry")


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def damage(path: Path) -> None:
    """Overwrite the headers of everything under the root."""
    content = path.read_bytes()
    path.write_bytes(content.replace(b"OHDR", b"ODHR"))


def newer(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["entry/layout_version"][()] = 99


def older(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["entry/layout_version"][()] = -1


def groupless(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["entry/shots_meta"]


def shorter(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["entry/training/loss"].resize(3, axis=0)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_record, "HDF5, but no record, expected one that labctl wrote"),
        (loop, r"damaged \(.*too many.*expected a record .* from a copy"),
        (cut, r"size=\d+ bytes, expected more: it was cut short"),
        (damage, r"(damaged|cannot be opened) \(.*expected a record.* from a copy"),
        (newer, "layout_version=99, expected 1 to 1. Read it with a newer labctl"),
        (older, "layout_version=-1, expected 1 to 1. Restore the file from a copy"),
        (groupless, "is missing, expected|is not there, expected"),
        (shorter, "has 3 rows, expected the 500 that were committed"),
    ],
)
def test_what_cannot_be_read_is_no_record_and_nothing_is_written(
    training_record: Path, tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    copy = tmp_path / "run.h5"
    shutil.copy(training_record, copy)
    spoil(copy)
    with pytest.raises(InputError, match=said) as error:
        page.write(copy, tmp_path / "run.html")
    assert error.value.exit_code == 2
    assert not (tmp_path / "run.html").exists()


def test_refuses_a_kind_that_nothing_runs(
    training_record: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run.h5"
    shutil.copy(training_record, copy)
    with h5py.File(copy, "r+") as file:
        file["entry/kind"][()] = "dream"
    with pytest.raises(InputError, match=r"kind='dream', expected one of train, "):
        page.write(copy, tmp_path / "run.html")


@pytest.mark.parametrize(
    ("name", "said"),
    [("reservoir/bins", "'bins' is missing, expected"), ("environment/argv", "argv")],
)
def test_a_record_without_a_value_says_which(
    training_record: Path, tmp_path: Path, name: str, said: str
) -> None:
    copy = tmp_path / "run.h5"
    shutil.copy(training_record, copy)
    with h5py.File(copy, "r+") as file:
        del file["entry"][name]
    with pytest.raises(InputError, match=said) as error:
        page.write(copy, tmp_path / "run.html")
    assert "is missing" in str(error.value)


def test_a_column_of_another_type_is_named(
    training_record: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run.h5"
    shutil.copy(training_record, copy)
    with h5py.File(copy, "r+") as file:
        count = len(file["entry/training/loss"])
        del file["entry/training/loss"]
        words = np.array([b"high"] * count)
        file.create_dataset("entry/training/loss", data=words, maxshape=(None,))
    with pytest.raises(InputError, match=r"training/loss.*expected numbers"):
        page.write(copy, tmp_path / "run.html")


def test_a_training_that_never_was_a_number_has_a_page(
    training_record: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run.h5"
    shutil.copy(training_record, copy)
    with h5py.File(copy, "r+") as file:
        for column in file["entry/training"].values():
            if column.dtype.kind == "f":
                column[...] = np.nan
    parsed = outline(page.write(copy, tmp_path / "run.html"))
    assert "is a number in this record." in parsed.text


@pytest.mark.parametrize(
    ("study", "column", "is_nan", "said"),
    [
        ("evolution", "shots", False, "'shots' is missing"),
        ("manifold", "error", False, "'error' is missing"),
        ("evolution", "loss", True, "cannot be drawn"),
    ],
)
def test_a_study_that_cannot_be_drawn_says_what_is_wrong(
    make_study: Callable[[str], Path],
    tmp_path: Path,
    study: str,
    column: str,
    is_nan: bool,
    said: str,
) -> None:
    copy = tmp_path / "run.h5"
    shutil.copy(make_study(study), copy)
    with h5py.File(copy, "r+") as file:
        if is_nan:
            file["entry/fits"][column][...] = np.nan
        else:
            del file["entry/fits"][column]
    with pytest.raises(InputError, match=rf"{said}.*expected") as error:
        page.write(copy, tmp_path / "run.html")
    assert "Restore the file from a copy" in str(error.value)


@pytest.mark.parametrize("length", [300, 5000])
def test_names_that_no_disk_takes_are_refused(
    empty_record: Path, tmp_path: Path, length: int
) -> None:
    long = tmp_path / f"{'a' * length}.html"
    with pytest.raises(InputError, match="cannot be written"):
        page.write(empty_record, long)
    with pytest.raises(InputError, match="not there"):
        page.write(long, tmp_path / "run.html")


def test_a_figure_named_by_a_record_stays_in_its_folder(
    write_record: Callable[..., Path], tmp_path: Path
) -> None:
    record = write_record("calibrate", "/../../out")
    page.write(record, tmp_path / "run.html", tmp_path / "in" / "png")
    names = {path.name for path in (tmp_path / "in" / "png").iterdir()}
    assert names == {"rise-out.png", "shot.png", "ledger.png"}


def test_a_record_that_is_written_and_one_left_by_a_kill_have_pages(
    make_header: Callable[..., Header], tmp_path: Path
) -> None:
    path, left = tmp_path / "run.h5", tmp_path / "left.h5"
    layout = train_layout(ShotSpec(15, 6), metrics=("score_validation",))
    header = make_header("train", {"model": []})
    with Recorder.create(path, layout=layout, header=header) as recorder:
        recorder.event("info", "run", "begun")
        recorder.commit()
        live = outline(page.write(path, tmp_path / "run.html")).text
        left.write_bytes(path.read_bytes())  # as a kill leaves it
    killed = outline(page.write(left, tmp_path / "left.html")).text
    for text in (live, killed):
        assert "There is no result: the status of this record is running." in text
        assert "No step was recorded yet." in text
        assert "begun" in text
    assert "It is being written: a later report shows more." in live
    assert "was killed. Go on with labctl run --resume left.h5." in killed
    short = tmp_path / "short.h5"
    short.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="expected"):
        page.write(short, tmp_path / "short.html")


@pytest.mark.parametrize("kind", ["train", "scan", "evaluate", "calibrate", "study"])
def test_a_stranger_gets_a_page_or_a_sentence(
    make_header: Callable[..., Header], tmp_path: Path, kind: Kind
) -> None:
    path = tmp_path / "run.h5"
    odd = {"model": 3, "study": {"name": "mse"}, "sweep": ["a"], "seed": {}}
    header = make_header(kind, odd)
    layouts = {
        "train": train_layout(ShotSpec(15, 6)),
        "scan": scan_layout(ShotSpec(15, 6)),
        "evaluate": evaluate_layout(ShotSpec(15, 6), n_predictions=2, n_targets=1),
        "calibrate": calibrate_layout((4, 6), (6, 9), "u1"),
        "study": study_layout(()),
    }
    with Recorder.create(path, layout=layouts[kind], header=header) as recorder:
        recorder.set_result({"figures": 3, "metric": [1], "score_test": "good"})
    said = ""
    try:
        page.write(path, tmp_path / "run.html")
    except InputError as error:
        said = str(error)
    assert not said or f"expected what labctl records of a run of kind {kind}" in said


# What a page does without: it says no more than that they are there.
SPARED = {"data", "probes", "program_name", "run_uuid", "writers"}


def test_a_record_without_one_of_its_parts_says_which(
    training_record: Path, tmp_path: Path
) -> None:
    with h5py.File(training_record) as file:
        names = set(file["entry"])
    assert names > SPARED
    copy = tmp_path / "run.h5"
    for name in names - SPARED:
        shutil.copy(training_record, copy)
        with h5py.File(copy, "r+") as file:
            del file["entry"][name]
        with (
            pytest.raises(InputError, match=rf"{name}\b.*, expected .*\. .*estore the"),
            Record.open(copy) as record,
        ):
            page._read(record)
