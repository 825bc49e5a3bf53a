from typing import TYPE_CHECKING

from labctl.training.surrogate.settings import FitTerm, SurrogateSettings

if TYPE_CHECKING:
    from tests.labctl.training.surrogate.conftest import Fit, Task


def test_finds_the_gradient_of_a_product(product_task: "Task", fit: "Fit") -> None:
    settings = SurrogateSettings(
        "twin-dense", fit_batch=256, learning_rate=1e-2, average=0.98
    )
    fitter = fit(product_task, settings, shots=10_000, steps=800)
    assert product_task.cosine(fitter) > 0.99


def test_finds_the_gradient_of_linear_optics_from_differences(
    optics_task: "Task", fit: "Fit"
) -> None:
    settings = SurrogateSettings(
        "twin-dense",
        width=64,
        learning_rate=1e-2,
        average=0.98,
        loss=(FitTerm("jvp"),),
    )
    fitter = fit(optics_task, settings, shots=5000, steps=250)
    assert optics_task.cosine(fitter) > 0.98
