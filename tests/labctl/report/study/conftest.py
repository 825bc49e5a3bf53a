"""Records of studies, each made once for all workers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labctl.report import page
from labctl.run.execute import execute
from labctl.run.prepare import prepare
from labctl.run.progress import Silent
from labctl.run.setting import Options

PROTOCOLS = Path(__file__).parents[4] / "protocols" / "studies"
Once = Callable[[str, Callable[[Path], Any]], Any]
Make = Callable[..., Path]


@pytest.fixture(scope="session")
def make_study(once: Once) -> Make:
    """Run a shipped study, once a name; with ``--set`` changes where wanted."""

    def make(name: str, *changes: str) -> Path:
        def run(folder: Path) -> Path:
            out = folder / "run.h5"
            options = Options(out=out, overwrite=True, overrides=changes)
            execute(prepare(str(PROTOCOLS / f"{name}.yaml"), options), Silent())
            page.write(out, out.with_suffix(".html"))
            return out

        found: Path = once(name, run)
        return found

    return make
