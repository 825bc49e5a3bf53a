"""What every simulated light path must do."""

import json

import pytest

from labctl.devices import World


def test_starts_with_no_exposure_and_at_the_time_it_was_given(world: World) -> None:
    assert world.shots == 0
    assert world.clock.now() == 0


def test_goes_back_to_a_state(world: World) -> None:
    state = world.state()
    world.clock.sleep(2.0)
    world.restore(state)
    assert world.clock.now() == 0


def test_describes_itself_plainly(world: World) -> None:
    described = world.describe()
    assert json.loads(json.dumps(dict(described))) == dict(described)
    assert {"medium", "grid", "kernel"} <= set(described)


def test_time_does_not_go_back(world: World) -> None:
    with pytest.raises(ValueError, match="expected 0 or more"):
        world.clock.sleep(-1.0)
