"""Files of any kind, checked without a bench."""

from pathlib import Path

import pytest

from labctl.errors import ProtocolError
from labctl.run.validate import validate


def test_every_fault_of_every_file_is_found(small: Path) -> None:
    bad = small.with_name("bad.yaml")
    text = small.read_text(encoding="utf-8")
    bad.write_text(
        text.replace("batch:", "bach:").replace("shots: 400", "shots: none"),
        encoding="utf-8",
    )
    checked = validate([str(small), str(bad), "sim-small", "missing.yaml"])
    assert dict(checked.good) == {
        str(small): "protocol",
        "sim-small": "bench file",
    }
    assert len(checked.faults) == 3
    first = str(checked.faults[0])
    assert "bad.yaml line 12 column" in first
    assert "batch" in first
    with pytest.raises(ProtocolError, match="missing"):
        checked.raise_faults()


def test_a_calibration_of_another_bench_file_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = Path(__file__).parents[3] / "calibrations" / "sim-small"
    copy = tmp_path / "mine"
    copy.mkdir()
    for path in shipped.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    bench = copy / "bench.yaml"
    bench.write_text(bench.read_text(encoding="utf-8") + "\n# changed\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    (fault, *_) = validate([str(bench)]).faults
    assert "bench" in fault.text
