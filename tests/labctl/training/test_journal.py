import torch

from labctl.training.journal import (
    Listener,
    ProbeRows,
    Row,
    Silent,
    Status,
    Stopped,
)


def test_a_silent_listener_hears_everything_and_says_nothing() -> None:
    listener = Silent()
    assert isinstance(listener, Listener)
    listener.stage("training")
    listener.beat()
    listener.step(Row(0, 1.0, 1.0, 0.1, 0.5, 0.9, 0.1, 64, float("nan")))
    none = torch.zeros(0, dtype=torch.int64)
    listener.probes(
        ProbeRows("paired", 0, 0, none, none, torch.zeros(0, 5), torch.zeros(0, 5))
    )


def test_every_status_is_a_sentence() -> None:
    for status in Status:
        assert status.value.endswith(".")
        assert str(Stopped(status)) == status.value
