"""What a page may ask for."""

import pytest

from labctl.errors import InputError
from labctl.live import command


def test_a_command_is_read_with_its_defaults() -> None:
    got = command.read(b'{"do": "grating", "period_px": 8}')
    assert got == command.Grating(do="grating", period_px=8, angle_deg=0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"do": "shout"}', "does not match any of the expected tags"),
        ('{"do": "light", "power_mw": -1}', "power_mw: .*greater than 0"),
        ('{"do": "light", "power_mw": "NaN"}', "power_mw: .*finite"),
        ('{"do": "dark", "why": 1}', "why: Extra inputs"),
        ('{"do": "grating", "period_px": 1}', "period_px: .*at least|greater"),
        ("[", "command: Invalid JSON"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        command.read(text.encode())
