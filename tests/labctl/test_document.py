"""What people are told about the documents they write."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl import document
from labctl.calibration import BenchFile
from labctl.errors import Fault, ProtocolError
from labctl.protocol import ADAPTER, TrainProtocol

TRAIN = """\
schema_version: 1
kind: train
data: {set: digits}
model:
  - layer: device
  - layer: linear
surrogate: {name: dense}
budget: {shots: 100}
"""
LAYERS = "activation, device, linear, standardise"

# What is changed in TRAIN, and all that must be said about it.
INVALID = {
    "a misspelt key": (
        ("- layer: device", "- layer: device\n    encodng: additive"),
        ["p line 6 column 5: model.0.encodng: is not known. Did you mean encoding?"],
    ),
    "a wrong unit": (
        ("budget", "reservoir: {exposure_ms: 3}\nbudget"),
        [
            "p line 8 column 13: reservoir.exposure_ms: is not known, expected "
            "exposure_s in seconds."
        ],
    ),
    "a unit left out": (
        ("budget", "reservoir:\n  power: 3\nbudget"),
        ["p line 9 column 3: reservoir.power: is not known, expected power_mw in mW."],
    ),
    "a key in another section": (
        ("budget", "batch: 3\nbudget"),
        ["p line 8 column 1: batch: is not known here. Did you mean training.batch?"],
    ),
    "an unknown key": (
        ("shots: 100", "shots: 100, zzz: 1"),
        ["p line 8 column 22: budget.zzz: is not known, expected shots."],
    ),
    "a missing key": (
        ("{shots: 100}", "{}"),
        [
            "p line 8 column 9: budget.shots: is missing, expected a whole number "
            "from 1 to 1000000000."
        ],
    ),
    "a missing section": (
        ("budget: {shots: 100}", ""),
        ["p line 1 column 1: budget: is missing, expected a section with shots."],
    ),
    "a section that is a word": (
        ("{shots: 100}", "many"),
        ['p line 8 column 9: budget: got "many", expected a section with shots.'],
    ),
    "an unknown word": (
        ("digits", "digit"),
        [
            'p line 3 column 13: data.set: got "digit", expected one of digits, '
            "yin-yang, spirals, mnist-1d, moons, xor, knot, saddle, "
            "mackey-glass. Did you mean digits?"
        ],
    ),
    "an unknown kind": (
        ("train", "tran"),
        [
            'p line 2 column 7: kind: got "tran", expected one of comparison, '
            "evaluate, scan, study, train. Did you mean train?"
        ],
    ),
    "a missing kind": (
        ("kind: train", ""),
        [
            "p line 1 column 1: kind: is missing, expected one of comparison, "
            "evaluate, scan, study, train."
        ],
    ),
    "an unknown layer": (
        ("layer: linear", "layer: linera"),
        [
            f'p line 6 column 12: model.1.layer: got "linera", expected one of '
            f"{LAYERS}. Did you mean linear?"
        ],
    ),
    "a layer without its kind": (
        ("layer: linear", "outputs: 3"),
        [f"p line 6 column 5: model.1.layer: is missing, expected one of {LAYERS}."],
    ),
    "a layer that is a word": (
        ("- layer: linear", "- linear"),
        [
            'p line 6 column 5: model.1: got "linear", expected a section with '
            f"layer: one of {LAYERS}."
        ],
    ),
    "too small": (
        ("shots: 100", "shots: 0"),
        [
            "p line 8 column 17: budget.shots: got 0, expected a whole number from "
            "1 to 1000000000."
        ],
    ),
    "half a number": (
        ("shots: 100", "shots: 1.5"),
        [
            "p line 8 column 17: budget.shots: got 1.5, expected a whole number from "
            "1 to 1000000000."
        ],
    ),
    "a number as text": (
        ("shots: 100", 'shots: "100"'),
        [
            'p line 8 column 17: budget.shots: got "100", expected a whole number '
            "from 1 to 1000000000."
        ],
    ),
    "true for a number": (
        ("shots: 100", "shots: true"),
        [
            "p line 8 column 17: budget.shots: got true, expected a whole number "
            "from 1 to 1000000000."
        ],
    ),
    "nothing for a number": (
        ("shots: 100", "shots: "),
        [
            "p line 8 column 16: budget.shots: got nothing, expected a whole number "
            "from 1 to 1000000000."
        ],
    ),
    "yes for true": (
        ("budget", "reference: {oracle: yes}\nbudget"),
        ['p line 8 column 21: reference.oracle: got "yes", expected true or false.'],
    ),
    "a union of number and word": (
        ("budget", "estimator: {gain: 2}\nbudget"),
        [
            "p line 8 column 19: estimator.gain: got 2, expected a number from 0 to 1, "
            "or optimal."
        ],
    ),
    "a list too short": (
        ("budget", "probes: {dither_rad: [1]}\nbudget"),
        [
            "p line 8 column 22: probes.dither_rad.1: is missing, expected a number "
            "at least 0."
        ],
    ),
    "a list too long": (
        ("budget", "probes: {dither_rad: [1, 2, 3]}\nbudget"),
        [
            "p line 8 column 22: probes.dither_rad: got [1, 2, 3], expected a list of "
            "2, each a number at least 0."
        ],
    ),
    "no number": (
        ("budget", "training: {learning_rate_theta: .nan}\nbudget"),
        [
            "p line 8 column 33: training.learning_rate_theta: got .nan, expected a "
            "finite number."
        ],
    ),
    "beyond double precision": (
        ("budget", "training: {learning_rate_theta: 1e999}\nbudget"),
        [
            "p line 8 column 33: training.learning_rate_theta: got 1e999, expected a "
            "number below 1.8e308."
        ],
    ),
    "beyond 64 bits": (
        ("budget", "seed: 9223372036854775808\nbudget"),
        [
            "p line 8 column 7: seed: got 9223372036854775808, expected a whole "
            "number within 64 bits."
        ],
    ),
    "a key twice": (
        ("shots: 100", "shots: 100, shots: 200"),
        [
            "p line 8 column 22: budget.shots: is there twice, first on line 8. Keep "
            "one."
        ],
    ),
    "a tag": (
        ("shots: 100", "shots: !!int 100"),
        [
            "p line 8 column 17: budget.shots: tag tag:yaml.org,2002:int, expected a "
            "plain value. Remove the tag."
        ],
    ),
    "a later format": (
        ("schema_version: 1\nkind: train", "schema_version: 2\nkind: dream"),
        [
            "p line 1 column 17: schema_version: got 2, expected 1. It was written for "
            "a newer labctl: update."
        ],
    ),
    "a section that contradicts itself": (
        ("set: digits", "set: digits, file: a.csv"),
        [
            "p line 3 column 27: data.file: is there beside set, expected one. Remove "
            "either."
        ],
    ),
    "a section that is incomplete": (
        ("{set: digits}", "{file: a.csv}"),
        [
            "p line 3 column 7: data.task: is missing, expected classification or "
            "regression with file."
        ],
    ),
    "a model without device": (
        ("layer: device", "layer: standardise"),
        [
            "p line 5 column 3: model: has no device layer, expected one. Add an item "
            "with layer: device."
        ],
    ),
    "letters that steer a terminal": (
        ("set: digits", 'set: "\\e[2J"'),
        [
            'p line 3 column 13: data.set: got "\\x1b[2J", expected one of digits, '
            "yin-yang, spirals, mnist-1d, moons, xor, knot, saddle, mackey-glass."
        ],
    ),
    "several at once, in order": (
        ("digits}\nmodel:\n  - layer: device", "[]}\nmodell:\n  - layer: devise"),
        [
            "p line 1 column 1: model: is missing, expected a list of 1 to 32, each "
            f"a section with layer: one of {LAYERS}.",
            "p line 3 column 13: data.set: got [], expected one of digits, yin-yang, "
            "spirals, mnist-1d, moons, xor, knot, saddle, mackey-glass.",
            "p line 4 column 1: modell: is not known. Did you mean model?",
        ],
    ),
}

UNREADABLE = {
    "": "p: is empty, expected a map of keys, such as schema_version: 1.",
    "# only a remark": "p: is empty, expected a map of keys, such as "
    "schema_version: 1.",
    "- 1": "p line 1 column 1: got [1], expected a map of keys, such as "
    "schema_version: 1.",
    "a:\n\t- 1": "p line 2 column 1: a tab, expected blanks. Indent with blanks.",
    "a: 1\n b: 2": "p line 2 column 3: is not YAML: mapping values are not allowed "
    "here. Check indents and quotes.",
    "a: 'x": "p line 1 column 6: is not YAML: found unexpected end of stream (while "
    "scanning a quoted scalar). Check indents and quotes.",
    "a: 1\n---\nb: 1": "p line 2 column 1: a second document, expected one. Split the "
    "file.",
    "%YAML 1.1\n---\na: 1": "p line 2 column 1: YAML 1.1, expected 1.2. Remove the "
    "line that says so.",
    "x\x00": "p line 1 column 2: character U+0000 is not allowed in YAML. Remove it.",
    'a: "\\UFFFFFFFF"': "p: is not YAML: an escape or directive that it has not. "
    "Remove it.",
    '"\\ud800": 1': "p line 1 column 1: half a surrogate pair, expected whole "
    "characters. Remove the escape.",
    "? [a]\n: 1": "p line 1 column 3: a key that is no word, expected key: value.",
    ": 1": "p line 1 column 1: a key that is no word, expected key: value.",
    "a: *b": "p line 1 column 4: alias *b has no anchor above it. Write the value out.",
    "a: &x [*x]": "p line 1 column 8: alias *x has no anchor above it. Write the value "
    "out.",
}

OVERRIDES = {
    "no_equals": "--set no_equals: is no change, expected key.path=value.",
    "=3": "--set =3: is no change, expected key.path=value.",
    "a..b=3": "--set a..b=3: is no change, expected key.path=value.",
    "training.batc=3": "--set training.batc=3: training.batc: is not known. Did you "
    "mean batch?",
    "trainin.batch=3": "--set trainin.batch=3: trainin: is not known. Did you mean "
    "training?",
    "model.2.layer=linear": "--set model.2.layer=linear: model.2: is not in the list, "
    "expected an item from 0 to 1.",
    "model.-1=linear": "--set model.-1=linear: model.-1: is not in the list, expected "
    "an item from 0 to 1.",
    "data.set.x=1": '--set data.set.x=1: data.set.x: has no place: data.set is "digits"'
    ", expected a section.",
    "budget.shots=0": "--set budget.shots=0: budget.shots: got 0, expected a whole "
    "number from 1 to 1000000000.",
    "budget.shots=.inf": "--set budget.shots=.inf: budget.shots: got .inf, expected a "
    "finite number.",
    "budget={shots: .nan}": "--set budget={shots: .nan}: budget.shots: got .nan, "
    "expected a finite number.",
    "budget={}": "--set budget={}: budget.shots: is missing, expected a whole number "
    "from 1 to 1000000000.",
    "budget=[": "--set budget=[: budget: is not YAML: expected the node content, but "
    "found '<stream end>' (while parsing a flow node). Check indents and quotes.",
    "reservoir.exposure_ms=3": "--set reservoir.exposure_ms=3: reservoir.exposure_ms: "
    "is not known, expected exposure_s in seconds.",
}


def messages(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ProtocolError) as caught:
        document.parse(text, ADAPTER, where="p", overrides=overrides)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(("change", "said"), INVALID.values(), ids=INVALID)
def test_says_what_is_wrong_and_where(change: tuple[str, str], said: list[str]) -> None:
    assert change[0] in TRAIN
    assert messages(TRAIN.replace(*change, 1)) == said


@pytest.mark.parametrize(("text", "said"), UNREADABLE.items())
def test_says_why_a_text_cannot_be_read(text: str, said: str) -> None:
    assert messages(text) == [said]


@pytest.mark.parametrize(("change", "said"), OVERRIDES.items())
def test_says_which_override_is_wrong(change: str, said: str) -> None:
    assert messages(TRAIN, change) == [said]


def test_valid_text_becomes_its_model() -> None:
    found = document.parse(TRAIN, ADAPTER, where="p")
    assert isinstance(found.value, TrainProtocol)
    assert found.value.budget.shots == 100
    assert found.data["model"] == [{"layer": "device"}, {"layer": "linear"}]
    assert found.text == TRAIN
    assert found.sha256 == hashlib.sha256(TRAIN.encode()).hexdigest()


def test_overrides_reach_lists_and_make_sections() -> None:
    changes = ["model.0.modes=5", "training.batch=7", "reservoir.bins=[2, 3]"]
    found = document.parse(TRAIN, TrainProtocol, where="p", overrides=changes)
    assert found.value.model[0].model_dump()["modes"] == 5
    assert found.value.training.batch == 7
    assert found.value.reservoir.bins == (2, 3)
    assert found.data["training"] == {"batch": 7}
    assert found.sha256 == hashlib.sha256(TRAIN.encode()).hexdigest()


def test_an_override_reaches_into_a_list_that_is_left_at_its_default() -> None:
    plain = document.parse(TRAIN, TrainProtocol, where="p").value.probes.dither_rad
    assert plain[0] != 0.125
    for model in (TrainProtocol, ADAPTER):
        changes = ["probes.dither_rad.0=0.125"]
        found = document.parse(TRAIN, model, where="p", overrides=changes).value
        assert isinstance(found, TrainProtocol)
        assert found.probes.dither_rad == (0.125, plain[1])


def test_a_list_without_a_default_is_asked_for_as_a_whole() -> None:
    (said,) = messages(TRAIN, "reservoir.bins.0=2")
    assert said.startswith(
        "--set reservoir.bins.0=2: reservoir.bins: is left out and has no items to "
        "change, expected a list of 2, each a whole number from 1 to 65536. Set all "
        "of it: --set reservoir.bins=[...]."
    )
    changes = ["reservoir.bins=[2, 3]", "reservoir.bins.0=4"]
    found = document.parse(TRAIN, TrainProtocol, where="p", overrides=changes)
    assert found.value.reservoir.bins == (4, 3)


def test_a_fault_names_its_section_once() -> None:
    found = document.parse(TRAIN, TrainProtocol, where="p")
    for text in ("budget: shots=5, too few.", "budget.shots: shots=5, too few."):
        told = str(found.fault("budget.shots", text))
        assert told.endswith("budget.shots: shots=5, too few.")
        assert told.count("budget") == 1


def test_the_last_override_of_a_key_holds() -> None:
    changes = ["seed=1", "bench=sim", "seed=2", "bench="]
    found = document.parse(TRAIN, TrainProtocol, where="p", overrides=changes)
    assert (found.value.seed, found.value.bench) == (2, None)


def test_an_override_may_mend_the_file() -> None:
    text = TRAIN.replace("shots: 100", "shots: many")
    found = document.parse(text, TrainProtocol, where="p", overrides=["budget.shots=9"])
    assert found.value.budget.shots == 9


def test_an_alias_is_a_copy() -> None:
    text = TRAIN.replace("- layer: linear", "- &a {layer: linear, outputs: 3}\n  - *a")
    changed = document.parse(
        text, TrainProtocol, where="p", overrides=["model.1.outputs=4"]
    )
    assert [layer.model_dump().get("outputs") for layer in changed.value.model] == [
        None,
        4,
        3,
    ]


def test_later_faults_stand_where_their_key_stands() -> None:
    found = document.parse(TRAIN, ADAPTER, where="p", overrides=["seed=3"])
    assert str(found.fault("model.1.layer", "no.")) == (
        "p line 6 column 12: model.1.layer: no."
    )
    assert str(found.fault("budget.extra", "no.")) == (
        "p line 8 column 9: budget.extra: no."
    )
    assert str(found.fault("seed", "no.")) == "--set seed=3: seed: no."


def test_a_screenful_of_faults_is_enough() -> None:
    text = TRAIN + "".join(f"k{n}: 1\n" for n in range(300))
    said = messages(text)
    assert len(said) == document.MOST_FAULTS + 1
    assert said[-1] == "p: and 250 more faults."


def test_reads_a_file_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    raw = TRAIN.replace("\n", "\r\n").encode()
    path.write_bytes(raw)
    found = document.read(path, ADAPTER)
    assert found.path == path
    assert found.sha256 == hashlib.sha256(raw).hexdigest()
    assert tuple(document.glance(path))[:2] == ("schema_version", "kind")


def test_says_why_a_file_cannot_be_read(tmp_path: Path) -> None:
    latin, large = tmp_path / "latin.yaml", tmp_path / "large.yaml"
    latin.write_bytes(b"a: 1\nb: \xe9\n")
    large.write_bytes(b"#" * (1 << 20) + b"\n")
    for path, said in (
        (tmp_path, ": a folder, expected a YAML file. Check the path."),
        (tmp_path / "no", ": no such file, expected a YAML file. Check the path."),
        (latin, " line 2: byte 0xe9, expected UTF-8 text. Save it as UTF-8."),
        (large, ": larger than 1048576 bytes, expected a short document."),
    ):
        with pytest.raises(ProtocolError) as caught:
            document.read(path, ADAPTER)
        assert str(caught.value) == f"{path}{said}"


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all"
)
def test_says_that_a_file_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(TRAIN)
    path.chmod(0)
    with pytest.raises(ProtocolError, match="Check its permissions"):
        document.read(path, ADAPTER)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with a protocol and a bench of its own."""
    for name in ("protocols/tasks/mine.yaml", "calibrations/my-bench/bench.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["tasks/mine", "tasks/mine.yaml"])
@pytest.mark.usefixtures("desk")
def test_finds_a_protocol_by_name(name: str) -> None:
    assert document.find(name, "protocols") == Path("protocols/tasks/mine.yaml")


def test_finds_a_protocol_by_path(desk: Path) -> None:
    path = desk / "protocols" / "tasks" / "mine.yaml"
    assert document.find(path, "protocols") == path
    assert document.find("protocols/../protocols/tasks/mine", "protocols").is_file()


@pytest.mark.usefixtures("desk")
def test_finds_what_is_shipped() -> None:
    path = document.find("quickstart", "protocols")
    assert path.name == "quickstart.yaml"
    assert path.is_file()


@pytest.mark.usefixtures("desk")
def test_what_is_here_goes_before_what_is_shipped() -> None:
    mine = Path("protocols/quickstart.yaml")
    mine.touch()
    assert document.find("quickstart.yaml", "protocols") == mine


@pytest.mark.parametrize(
    "name",
    ["my-bench", "calibrations/my-bench", "calibrations/my-bench/bench.yaml"],
)
@pytest.mark.usefixtures("desk")
def test_finds_a_bench_by_name_folder_or_file(name: str) -> None:
    assert document.find_bench(name) == Path("calibrations/my-bench/bench.yaml")
    assert "my-bench" in document.benches()


@pytest.mark.usefixtures("desk")
def test_says_which_benches_there_are() -> None:
    with pytest.raises(ProtocolError) as caught:
        document.find_bench("my-bnech")
    said = str(caught.value)
    assert said.startswith("my-bnech: no such file, expected a path or one of: ")
    assert said.endswith(" Did you mean my-bench?")


@pytest.mark.parametrize(
    "name", ["../secret", "tasks/../../secret", "x" * 5000, "a\x00b", "", "tasks"]
)
def test_a_name_leads_nowhere_else(desk: Path, name: str) -> None:
    (desk / "secret").mkdir()
    (desk / "secret" / "bench.yaml").touch()
    with pytest.raises(ProtocolError, match="no such file"):
        document.find(name, "protocols")
    with pytest.raises(ProtocolError, match="no such file"):
        document.find_bench(name)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(
        ["train", "device", "digits", "!!x", "&a b", "*a", "<<", "\t", ": "]
    ),
    st.text(max_size=20),
)
KEYS = st.one_of(
    st.sampled_from(["kind", "schema_version", "data", "model", "budget", "layer"]),
    st.text(max_size=10),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=12,
)


def tried(text: str, *overrides: str) -> None:
    faults: tuple[Fault, ...] = ()
    try:
        document.parse(text, ADAPTER, where="p", overrides=overrides)
    except ProtocolError as err:
        faults = err.faults
    for line in map(str, faults):
        assert line.isprintable()
        assert "pydantic" not in line
        assert len(line) < 1200


@given(st.text(max_size=200))
@settings(deadline=None, max_examples=60)
def test_any_text_is_refused_in_words(text: str) -> None:
    tried(text)


@given(st.text(alphabet='[]{}&*!|>%@`"\\ \n\t-?:,#a1.~', max_size=80))
@settings(deadline=None, max_examples=60)
def test_any_punctuation_is_refused_in_words(text: str) -> None:
    tried(text)


@given(TREES)
@settings(deadline=None, max_examples=60)
def test_any_tree_is_refused_in_words(tree: object) -> None:
    # What repr writes is close enough to YAML to get past the syntax often.
    tried(f"schema_version: 1\nkind: train\nmodel: {tree!r}\n")
    tried(repr(tree))


@given(st.text(max_size=20), TREES)
@settings(deadline=None, max_examples=60)
def test_any_override_is_refused_in_words(key: str, tree: object) -> None:
    tried(TRAIN, f"{key}={tree!r}", f"model.0.{key}={tree!r}", f"{tree!r}")


@given(
    shots=st.integers(1, 10**9),
    rate=st.floats(1e-300, 1e300),
    title=st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"])),
    bins=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
@settings(deadline=None, max_examples=60)
def test_what_is_valid_comes_back(
    shots: int, rate: float, title: str, bins: tuple[int, int]
) -> None:
    given_values = {
        "budget.shots": shots,
        "training.learning_rate_theta": rate,
        "title": title,
        "reservoir.bins": list(bins),
    }
    changes = [f"{key}={json.dumps(value)}" for key, value in given_values.items()]
    first = document.parse(TRAIN, TrainProtocol, where="p", overrides=changes)
    assert first.value.budget.shots == shots
    assert first.value.training.learning_rate_theta == rate
    assert first.value.title == title
    assert first.value.reservoir.bins == bins
    # JSON is YAML: the whole resolved model reads back as itself.
    again = document.parse(first.value.model_dump_json(), TrainProtocol, where="p")
    assert again.value == first.value


def test_bench_files_are_told_like_protocols() -> None:
    with pytest.raises(ProtocolError) as caught:
        document.parse("schema_version: 1\nname: sim\n", BenchFile, where="b")
    assert [fault.key for fault in caught.value.faults] == [
        "devices",
        "limits",
        "reservoir",
    ]
