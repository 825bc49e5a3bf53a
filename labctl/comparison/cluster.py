"""Hand the trainings of a comparison to a Dask cluster, through joblib.

Scheduler and workers are started by whoever owns the cluster. A worker that dies
costs the training that it was at: the scheduler gives it to another one.
"""

import ipaddress
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import joblib

from labctl.errors import InputError

CONNECT_S = 10
"""Longest wait for the scheduler, and then for a first worker."""


def check(address: str) -> None:
    """Refuse an address that anyone on the network could use.

    Parameters
    ----------
    address
        Of the scheduler: ``tcp://`` on loopback, or ``tls://``.

    Raises
    ------
    InputError
        It is neither.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    local = parts.scheme == "tcp" and _is_loopback(host)
    if not port or not (local or parts.scheme == "tls"):
        text = (
            f"--cluster: address={address}, expected tcp://127.0.0.1:PORT or "
            "tls://HOST:PORT: a worker runs whatever it is sent. Start the scheduler "
            "on loopback, or with certificates."
        )
        raise InputError(text)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def handed_to(address: str | None) -> Iterator[int | None]:
    """Let joblib send what it is given to a cluster; without one, to processes here.

    Parameters
    ----------
    address
        Of the scheduler; None for no cluster.

    Yields
    ------
    workers
        How many there are; None without a cluster.

    Raises
    ------
    InputError
        The extra is not installed, nobody answers, no worker is there, or a worker
        would train twice at a time.
    """
    if address is None:
        yield None
        return
    check(address)
    with _client(address) as client:
        workers: dict[str, int] = client.nthreads()
        if not workers:
            text = (
                f"--cluster: workers=0 at {address}, expected at least 1. Start one "
                f"with `dask worker {address} --nthreads 1`."
            )
            raise InputError(text)
        busy = {name: threads for name, threads in workers.items() if threads != 1}
        if busy:
            text = (
                f"--cluster: threads={json.dumps(busy)}, expected 1 a worker: a "
                "training has its process to itself. Start them with --nthreads 1."
            )
            raise InputError(text)
        with joblib.parallel_config(backend="dask", client=client):
            yield len(workers)


@contextmanager
def _client(address: str) -> Iterator[Any]:
    try:
        # Only for whom it is needed: it takes a second, and is an extra.
        from distributed import Client  # noqa: PLC0415
    except ImportError as error:
        text = (
            "--cluster: distributed=none, expected the package. Install it with "
            "`pip install labctl[cluster]`, here and where the workers are."
        )
        raise InputError(text) from error
    try:
        client = Client(address, timeout=CONNECT_S, set_as_default=False)
        client.wait_for_workers(1, timeout=CONNECT_S)
    except TimeoutError:
        text = (
            f"--cluster: address={address} has no scheduler, or no worker, within "
            f"{CONNECT_S} s. Start `dask scheduler` and `dask worker`, or correct it."
        )
        raise InputError(text) from None
    except OSError as error:
        text = (
            f"--cluster: address={address}, expected a Dask scheduler that answers "
            f"({error}). Start `dask scheduler`, or correct the address."
        )
        raise InputError(text) from error
    with client:
        yield client
