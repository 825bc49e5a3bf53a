import pytest

from labctl.training.surrogate.settings import Ports


def test_ports_refuse_a_device_without_outputs() -> None:
    with pytest.raises(ValueError, match="pixels=4, outputs=0"):
        Ports(4, 0)


def test_ports_refuse_a_layout_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"layout=\(2, 3\), expected pixels=4"):
        Ports(4, 2, layout=(2, 3))
