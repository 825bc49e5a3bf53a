"""Records of studies, each made once for all workers."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from labctl.report import page
from labctl.run.execute import execute
from labctl.run.prepare import prepare
from labctl.run.progress import Silent
from labctl.run.setting import Options

PROTOCOLS = Path(__file__).parents[4] / "protocols" / "studies"
Make = Callable[..., Path]


@pytest.fixture(scope="session")
def make_study(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Run a shipped study, once a name; with ``--set`` changes where wanted."""
    root = tmp_path_factory.getbasetemp()
    # The workers of pytest-xdist share the folder above their own.
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def make(name: str, *changes: str) -> Path:
        folder = root / "studies" / name
        folder.mkdir(parents=True, exist_ok=True)
        out = folder / "run.h5"
        with FileLock(folder / "lock"):
            if not out.with_suffix(".html").exists():
                options = Options(out=out, overwrite=True, overrides=changes)
                execute(prepare(str(PROTOCOLS / f"{name}.yaml"), options), Silent())
                page.write(out, out.with_suffix(".html"))
        return out

    return make
