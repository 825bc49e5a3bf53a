"""Trainings go to a cluster, and none is lost with a worker that dies."""

import itertools
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from labctl.comparison import cluster
from labctl.comparison.run import ComparisonJob, choose, execute
from labctl.errors import InputError
from labctl.run.progress import Silent
from labctl.run.setting import Options, Outcome

LONGEST_S = 60.0


@pytest.mark.parametrize(
    "address",
    [
        "tcp://127.0.0.1:8786",
        "tcp://[::1]:8786",
        "tcp://localhost:8786",
        "tls://cluster.lab:8786",
    ],
)
def test_loopback_and_certificates_are_let_through(address: str) -> None:
    cluster.check(address)


@pytest.mark.parametrize(
    "address",
    [
        "tcp://192.168.0.7:8786",
        "tcp://cluster.lab:8786",
        "tcp://0.0.0.0:8786",
        "127.0.0.1:8786",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:many",
        "tls://cluster.lab",
        "ws://127.0.0.1:8786",
        "",
    ],
)
def test_an_address_that_anyone_could_use_is_refused(address: str) -> None:
    with pytest.raises(InputError, match=r"expected tcp://127\.0\.0\.1:PORT or tls"):
        cluster.check(address)
    with pytest.raises(InputError, match="--cluster"), cluster.handed_to(address):
        pass


def test_without_a_cluster_joblib_is_left_as_it_is() -> None:
    with cluster.handed_to(None) as workers:
        assert workers is None


def test_the_extra_is_named_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(InputError, match=r"pip install labctl\[cluster\]"),
        cluster.handed_to("tcp://127.0.0.1:8786"),
    ):
        pass


def test_only_comparisons_on_simulated_benches_go_to_a_cluster(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "tcp://127.0.0.1:8786"
    job = choose(str(tiny), None, Options(), cluster=address)
    assert isinstance(job, ComparisonJob)
    assert job.cluster == address
    scan = tiny.with_name("scan.yaml")
    text = "schema_version: 1\nkind: scan\nbench: sim-small\n"
    scan.write_text(
        text + "sweep: reservoir.power_mw\nvalues: [1.0]\n", encoding="utf-8"
    )
    with pytest.raises(InputError, match="kind=scan, expected a comparison"):
        choose(str(scan), None, Options(), cluster=address)
    real = property(lambda _: False)
    monkeypatch.setattr(type(job.setting.source.file), "simulated", real)
    with pytest.raises(InputError, match="is real, expected a simulated one"):
        choose(str(tiny), None, Options(overrides=("workers=1",)), cluster=address)


@dataclass
class Cluster:
    """A scheduler with its workers, each a process of its own."""

    address: str
    workers: list[BaseProcess]


Running = Callable[..., AbstractContextManager[BaseProcess]]
# A program of others', in a process that begins with all of labctl imported.
PROGRAM = """
import importlib, os, sys, warnings
warnings.simplefilter("ignore")
nowhere = os.open(os.devnull, os.O_WRONLY)
os.dup2(nowhere, 1), os.dup2(nowhere, 2)
sys.argv = {words!r}
if __name__ == "__main__":
    importlib.import_module({module!r}).main()
"""


@pytest.fixture
def running(tmp_path: Path, fork: Callable[[Path], BaseProcess]) -> Running:
    """Run a program until it is left."""
    numbers = itertools.count()

    @contextmanager
    def run(module: str, *arguments: str) -> Iterator[BaseProcess]:
        script = tmp_path / f"program-{next(numbers)}.py"
        words = [module, *arguments, "--no-dashboard"]
        script.write_text(PROGRAM.format(module=module, words=words), encoding="utf-8")
        process = fork(script)
        try:
            yield process
        finally:
            process.kill()
            process.join()

    return run


def until(path: Path) -> str:
    """Wait for a file of a real process, and read it.

    Raises
    ------
    TimeoutError
        It does not come.
    """
    end_s = time.monotonic() + LONGEST_S
    while time.monotonic() < end_s:
        if path.is_file() and path.read_text(encoding="utf-8").endswith("}"):
            return path.read_text(encoding="utf-8")
        time.sleep(0.05)
    text = f"{path.name}: nothing after {LONGEST_S:g} s"
    raise TimeoutError(text)


@pytest.fixture
def local(tmp_path: Path, running: Running) -> Iterator[Cluster]:
    told = tmp_path / "scheduler.json"
    with ExitStack() as stack:
        host = ("--host", "127.0.0.1")
        file = ("--scheduler-file", str(told))
        stack.enter_context(
            running("distributed.cli.dask_scheduler", *host, *file, "--port", "0")
        )
        address = str(json.loads(until(told))["address"])
        own = ("--nthreads", "1", "--no-nanny", "--local-directory", str(tmp_path))
        workers = [
            stack.enter_context(
                running("distributed.cli.dask_worker", address, *host, *own)
            )
            for _ in range(2)
        ]
        yield Cluster(address, workers)


@pytest.mark.slow
def test_a_worker_that_dies_costs_no_training(
    tiny: Path, compared: Outcome, local: Cluster
) -> None:
    jobs = tiny.parent / "tiny-jobs"

    def kill() -> None:
        # Every training begins with its protocol: both workers are at one.
        end_s = time.monotonic() + LONGEST_S
        while len(list(jobs.glob("*.yaml"))) < 2 and time.monotonic() < end_s:
            time.sleep(0.02)
        local.workers[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    # The second worker may come later than the first; the first begins then alone.
    job = choose(str(tiny), None, Options(out=Path("c.h5")), cluster=local.address)
    outcome = execute(job, Silent())
    killer.join()
    local.workers[0].join()
    assert local.workers[0].exitcode == -signal.SIGKILL
    assert outcome.status == "complete"
    keys = ("task", "method", "seeds", "mean")
    found, expected = (
        [[row[key] for key in keys] for row in one.result["table"]]
        for one in (outcome, compared)
    )
    assert found == expected
