import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from labctl.training.readout import Task, solve

CLASSES = Task("classification", 3)
REAL = Task("regression", 2)


def clouds(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.randint(3, (240,), generator=generator)
    centres = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    x = centres[target] + torch.randn(240, 2, generator=generator)
    return x * torch.tensor([1.0, 300.0]) + torch.tensor([5.0, 9000.0]), target


def test_classes_are_solved_as_another_library_does(
    generator: torch.Generator,
) -> None:
    x, target = clouds(generator)
    found = solve(x, target, CLASSES, penalty=0.05)
    scaled = (x - x.mean(dim=0)) / x.std(dim=0, correction=0)
    peer = LogisticRegression(C=1 / (0.05 * 240), tol=1e-8, max_iter=1000)
    peer.fit(scaled.numpy(), target.numpy())
    wanted = torch.from_numpy(peer.predict_proba(scaled.numpy()))
    assert torch.allclose(found(x).softmax(dim=1), wanted.double(), atol=1e-3)


def test_the_units_of_the_features_do_not_matter(generator: torch.Generator) -> None:
    x, target = clouds(generator)
    first = solve(x, target, CLASSES)(x)
    scale = torch.tensor([1e-3, 50.0])
    second = solve(x * scale, target, CLASSES)(x * scale)
    assert torch.allclose(first, second, atol=1e-2)


def test_real_targets_are_recovered_with_their_offset(
    generator: torch.Generator,
) -> None:
    x = 40 + 10 * torch.randn(60, 4, generator=generator, dtype=torch.float64)
    weight = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    target = x @ weight.T + torch.tensor([3.0, -7.0])
    found = solve(x, target, REAL, penalty=1e-10)
    assert torch.allclose(found.weight, weight, atol=1e-6)
    assert REAL.score(found(x), target) < 1e-6
    layer = nn.Linear(4, 2).double()
    found.put_into(layer)
    assert torch.allclose(layer(x), target, atol=1e-5)


def test_a_feature_that_never_varies_does_no_harm(generator: torch.Generator) -> None:
    x, target = clouds(generator)
    dead = torch.cat((x, torch.full((240, 1), 7.0)), dim=1)
    first, second = solve(x, target, CLASSES), solve(dead, target, CLASSES)
    assert torch.allclose(first(x), second(dead), atol=1e-4)


def test_scores_say_what_they_are() -> None:
    assert (CLASSES.metric, CLASSES.direction) == ("accuracy", "up")
    assert (REAL.metric, REAL.direction) == ("nrmse", "down")
    answer = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    assert CLASSES.score(answer, torch.tensor([0, 1])) == 0.5
    target = torch.tensor([[1.0, 5.0], [3.0, 9.0]])
    assert REAL.score(target.mean(dim=0).expand(2, 2), target) == pytest.approx(1.0)
    assert REAL.score(target, target) == 0.0


def test_losses_fit_the_task() -> None:
    answer = torch.tensor([[0.0, 0.0, 0.0]])
    loss = CLASSES.loss(answer, torch.tensor([2]))
    assert loss.item() == pytest.approx(1.0986, abs=1e-4)
    found = REAL.loss(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 0.0]]))
    assert found.item() == 5.0


@pytest.mark.parametrize(
    ("task", "target"),
    [
        (Task("classification", 3), torch.tensor([0, 2, 1, 1])),
        (Task("regression", 3), torch.randn(4, 3)),
        (Task("regression", 1), torch.randn(4)),
    ],
)
def test_the_mean_of_each_loss_is_the_loss(task: Task, target: Tensor) -> None:
    answer = torch.arange(4.0 * task.outputs).sin().reshape(4, task.outputs)
    each = task.each(answer, target)
    assert each.shape == (4,)
    if task.outputs == 1:
        target = target[:, None]
    torch.testing.assert_close(each.mean(), task.loss(answer, target))
