"""Every study that a protocol can name is there, and its page is current."""

from pathlib import Path
from typing import Any, get_args

import pytest

from labctl import document
from labctl.protocol import ADAPTER, StudyProtocol
from labctl.protocol import Study as Spec
from labctl.report.study.course import FIGURES
from labctl.studies.catalogue import BENCH_STUDIES, STUDIES, markdown
from labctl.studies.job import BenchStudy, Study

BOTH: dict[str, Study[Any] | BenchStudy[Any]] = {**STUDIES, **BENCH_STUDIES}
ROOT = Path(__file__).parents[3]
COMMAND = (
    'python -c "from pathlib import Path; '
    "from labctl.studies.catalogue import markdown; "
    "Path('docs/reference/studies.md').write_text("
    "markdown(), encoding='utf-8', newline='\\n')\""
)
PROTOCOLS = sorted((ROOT / "protocols" / "studies").glob("*.yaml"))


def _names() -> set[str]:
    # One class alone is no union.
    specs: tuple[Any, ...] = get_args(get_args(Spec)[0] if get_args(Spec) else Spec)
    specs = specs or (Spec,)
    return {get_args(spec.model_fields["name"].annotation)[0] for spec in specs}


def test_every_study_of_the_schema_is_built_and_drawn() -> None:
    assert set(BOTH) == set(FIGURES) == _names()
    assert not set(STUDIES) & set(BENCH_STUDIES)


def test_the_reference_page_is_current() -> None:
    page = ROOT / "docs" / "reference" / "studies.md"
    assert page.read_text(encoding="utf-8") == markdown(), f"Write it by: {COMMAND}"


def test_every_study_comes_in_two_sizes() -> None:
    sizes: dict[str, set[str]] = {}
    for path in PROTOCOLS:
        found = document.read(path, ADAPTER).value
        if isinstance(found, StudyProtocol):
            assert path.stem.endswith(found.size)
            sizes.setdefault(found.study.name, set()).add(found.size)
    assert sizes == {name: {"smoke", "full"} for name in BOTH}


@pytest.mark.parametrize("path", PROTOCOLS, ids=lambda path: path.stem)
def test_no_two_jobs_of_a_study_are_alike(path: Path) -> None:
    found = document.read(path, ADAPTER).value
    if not isinstance(found, StudyProtocol):
        return
    study = BOTH[found.study.name]
    names = [job.name for job in study.jobs(found.study, range(found.seeds))]
    assert len(names) == len(set(names)) >= found.seeds
    # A job's column holds so many bytes.
    assert max(len(name.encode()) for name in names) <= 96
