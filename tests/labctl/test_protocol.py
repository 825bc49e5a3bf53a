"""Protocols: what they refuse, and what is written about them."""

from pathlib import Path

import pytest

from labctl import document, protocol
from labctl.errors import ProtocolError
from labctl.protocol import ADAPTER, EvaluateProtocol, ScanProtocol, TrainProtocol

HEAD = "schema_version: 1\nkind: "
TRAIN = (
    HEAD + "train\ndata: {set: digits}\nmodel: [{layer: device}]\n"
    "surrogate: {name: dense}\nbudget: {shots: 9}\n"
)
EVALUATE = HEAD + "evaluate\nsource: run.h5\n"
SCAN = HEAD + "scan\nsweep: reservoir.power_mw\nvalues: [1, 2.5]\n"
REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize(
    ("text", "kind"),
    [(TRAIN, TrainProtocol), (EVALUATE, EvaluateProtocol), (SCAN, ScanProtocol)],
)
def test_the_kind_chooses_the_model(text: str, kind: type) -> None:
    assert type(document.parse(text, ADAPTER, where="p").value) is kind


@pytest.mark.parametrize(
    ("text", "changes", "said"),
    [
        (TRAIN, ["data.set="], "data.set: is missing, expected set (a built-in data"),
        (TRAIN, ["data.file=a"], "data.file: is there beside set, expected one."),
        (TRAIN, ["data.set=a/mine.CSV"], 'data.set: got "a/mine.CSV", which is a file'),
        (TRAIN, ["data={file: a}"], "data.task: is missing, expected classification"),
        (TRAIN, ["model=[{layer: linear}]"], "model: has no device layer, expected"),
        (TRAIN, ["model=[]"], "model: got [], expected a list of 1 to 32, each a"),
        (TRAIN, ["model.0.split=1"], "model.0.split: got 1, expected a number above 0"),
        (TRAIN, ["surrogate={width: 9}"], "surrogate.name: is missing, expected one"),
        (TRAIN, ["seed=-1"], "seed: got -1, expected a whole number at least 0."),
        (TRAIN, ["budget.shots=1e3"], "budget.shots: got 1000.0, expected a whole"),
        (TRAIN, ["reservoir.bins=[0, 3]"], "reservoir.bins.0: got 0, expected a whole"),
        (TRAIN, ["reservoir.power_mw=0"], "reservoir.power_mw: got 0, expected a num"),
        (EVALUATE, ['source=""'], 'source: got "", expected text.'),
        (SCAN, ["values=[]"], "values: got [], expected a list of at least 1"),
        (SCAN, ["patterns.source=data"], "patterns.data: is missing, expected a data"),
        (SCAN, ["patterns.data={set: xor}"], "patterns.data: is not used with source"),
    ],
)
def test_refuses_what_makes_no_sense(text: str, changes: list[str], said: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        document.parse(text, ADAPTER, where="p", overrides=changes)
    (fault,) = caught.value.faults
    assert f"{fault.key}: {fault.text}".startswith(said)


def test_a_training_that_names_no_surrogate_has_one() -> None:
    text = TRAIN.replace("surrogate: {name: dense}\n", "")
    read = document.parse(text, ADAPTER, where="p").value
    assert isinstance(read, TrainProtocol)
    assert read.surrogate.name == "twin-pairs"


@pytest.mark.parametrize(
    "key",
    [
        *("surrogate.width", "surrogate.depth", "surrogate.rank", "surrogate.modes"),
        *("surrogate.fit_batch", "surrogate.fits_per_step", "surrogate.first_fits"),
        *("probes.window", "estimator.digital_steps"),
        *("method.candidates", "method.pretrain_fits", "method.digital_steps"),
    ],
)
def test_refuses_numbers_that_no_memory_or_life_is_long_enough_for(key: str) -> None:
    with pytest.raises(ProtocolError, match=f"{key}: got 1000000000, expected a whole"):
        document.parse(TRAIN, ADAPTER, where="p", overrides=[f"{key}=1000000000"])


def test_refuses_a_model_that_is_too_long_or_too_wide() -> None:
    wide = "{layer: linear, outputs: 1000000000}"
    with pytest.raises(ProtocolError, match=r"model\.0\..*outputs: got 1000000000"):
        document.parse(TRAIN, ADAPTER, where="p", overrides=[f"model=[{wide}]"])
    many = ", ".join(["{layer: device}"] * 33)
    with pytest.raises(
        ProtocolError, match=r"a list of 33, expected a list of 1 to 32"
    ):
        document.parse(TRAIN, ADAPTER, where="p", overrides=[f"model=[{many}]"])


def test_a_protocol_cannot_be_changed() -> None:
    found = document.parse(TRAIN, TrainProtocol, where="p").value
    with pytest.raises(ValueError, match="frozen"):
        found.seed = 3  # type: ignore[misc]  # that is what must not work


def test_every_shipped_protocol_is_valid() -> None:
    folder = Path(__file__).parents[2] / "protocols"
    found = sorted(folder.rglob("*.yaml"))
    assert found
    for path in found:
        document.read(path, ADAPTER)


def test_reference_pages_are_current(tmp_path: Path) -> None:
    protocol.write_schemas(tmp_path)
    command = (
        'python -c "from pathlib import Path; from labctl import protocol; '
        "protocol.write_schemas(Path('docs/reference'))\""
    )
    for path in tmp_path.iterdir():
        committed = (REFERENCE / path.name).read_bytes()
        assert committed == path.read_bytes(), f"{path.name} is old: run {command}"
