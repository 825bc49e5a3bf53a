from typing import TYPE_CHECKING

import pytest

from labctl.training.surrogate.settings import FitTerm, SurrogateSettings

if TYPE_CHECKING:
    from tests.labctl.training.surrogate.conftest import Fit, Task


def test_finds_a_matrix(matrix_task: "Task", fit: "Fit") -> None:
    settings = SurrogateSettings(
        "dense", width=64, depth=1, learning_rate=1e-2, average=0.98
    )
    fitter = fit(matrix_task, settings, shots=1000, steps=300)
    assert matrix_task.cosine(fitter) > 0.99


def test_finds_a_matrix_by_cosine_with_one_probe_a_group(
    matrix_task: "Task", fit: "Fit"
) -> None:
    loss = (FitTerm("cos"), FitTerm("gen", weight=0.2, a=0.5))
    settings = SurrogateSettings(
        "dense", width=64, depth=1, loss=loss, learning_rate=1e-2, average=0.98
    )
    fitter = fit(matrix_task, settings, shots=1000, steps=300)
    assert matrix_task.cosine(fitter) > 0.99


@pytest.mark.slow
def test_finds_the_gradient_of_a_product(product_task: "Task", fit: "Fit") -> None:
    settings = SurrogateSettings(
        "dense", width=512, depth=1, fit_batch=256, learning_rate=6e-3
    )
    fitter = fit(product_task, settings, shots=20_000, steps=1200)
    assert product_task.cosine(fitter) > 0.99
