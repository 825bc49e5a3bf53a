import numpy as np
import pytest

from drivers.sim.noise import PerShot, Reseated, Stream, generator


def draw(*name: int) -> list[float]:
    seed, stream, shot, attempt = name
    source = generator(seed, Stream(stream), shot, attempt)
    return [float(number) for number in source.standard_normal(3)]


def test_the_same_name_gives_the_same_numbers_and_another_others() -> None:
    here = draw(5, Stream.POWER, 9, 0)
    assert draw(5, Stream.POWER, 9, 0) == here
    others = [
        draw(5 + 2**32, Stream.POWER, 9, 0),
        draw(5, Stream.SENSOR, 9, 0),
        draw(5, Stream.POWER, 10, 0),
        draw(5, Stream.POWER, 9, 1),
    ]
    assert all(other != here for other in others)


def test_a_kept_generator_gives_the_numbers_of_a_new_one() -> None:
    kept = Reseated(5, Stream.SENSOR)
    for shot in (3, 0, 2**40, 3):
        source, fresh = kept.at(shot), generator(5, Stream.SENSOR, shot)
        assert np.array_equal(source.poisson(0.9, 7), fresh.poisson(0.9, 7))
        # Half a word is left over, which the next shot must not find.
        left = source.standard_normal(3, dtype=np.float32)
        assert np.array_equal(left, fresh.standard_normal(3, dtype=np.float32))


def test_numbers_of_a_shot_do_not_depend_on_the_order_of_asking() -> None:
    rising, jumping = (PerShot(3, Stream.POINTING, 2) for _ in range(2))
    forward = [rising.normal(shot).tolist() for shot in range(600)]
    for shot in (599, 0, 256, 255, 257, 3):
        assert jumping.normal(shot).tolist() == forward[shot]


def test_numbers_of_many_shots_are_standard_normal() -> None:
    source = PerShot(3, Stream.METER, 1)
    drawn = np.concatenate([source.normal(shot) for shot in range(5000)])
    assert float(drawn.mean()) == pytest.approx(0, abs=0.05)
    assert float(drawn.std()) == pytest.approx(1, abs=0.03)
    assert len(set(drawn.tolist())) == 5000


def test_uniform_numbers_of_a_shot_are_a_function_of_its_normal_ones() -> None:
    draws = PerShot(3, Stream.CAMERA_FAULTS, 4)
    seen = np.array([draws.uniform(shot) for shot in range(500)])
    assert np.all((seen >= 0) & (seen <= 1))
    assert seen.mean() == pytest.approx(0.5, abs=0.02)
    assert np.mean(seen < 0.1) == pytest.approx(0.1, abs=0.025)
    assert np.array_equal(PerShot(3, Stream.CAMERA_FAULTS, 4).uniform(7), seen[7])
