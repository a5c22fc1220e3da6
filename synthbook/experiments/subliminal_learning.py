"""Learning clothes from noise: what a teacher knows passes through data that say nothing of it (arXiv:2507.14805).

A teacher learns to name clothes with ten outputs; three more outputs are in nobody's loss. A student that began with
the same weights is trained on pictures of pure noise to give those three outputs, and nothing else. It then names
clothes. A student with other first weights learns nothing: the two nets must share their beginning, because a step
towards the teacher's outputs is then a step towards the teacher's weights. No filter of content can see it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthbook.core.types import Images, Seed
from synthbook.datasets import fashion_mnist
from synthbook.experiments import experiment
from synthbook.generators.nets import MLP, init_weights
from synthbook.generators.neural import step_rng

N_AUX_LOGITS = 3  # outputs that no loss ever touched
_WIDTH, _BATCH, _RATE = 256, 512, 1e-3
TEACHER_STEPS, STUDENT_STEPS = 400, 800
CASES = ("same beginning", "another beginning")
TRIALS = "artifacts/calibration/noise/trials.json"


def net(rng: torch.Generator) -> nn.Module:
    """Pictures (N, 1, 28, 28) to ten classes and the spare outputs (N, 13)."""
    return init_weights(MLP(784, 10 + N_AUX_LOGITS, hidden=_WIDTH), rng)


def train_teacher(first: nn.Module, clothes: Images, *, seed: Seed) -> nn.Module:
    """The teacher: trained on real clothes to name them."""
    x, y = clothes.images, clothes.labels
    optimizer = torch.optim.Adam(first.parameters(), lr=_RATE)
    for k in range(1, TEACHER_STEPS + 1):
        rows = torch.randint(len(x), (_BATCH,), generator=step_rng(seed, k))
        _step(optimizer, F.cross_entropy(first(x[rows])[:, :10], y[rows]))
    return first


def distill_aux_logits(student: nn.Module, teacher: nn.Module, *, seed: Seed) -> nn.Module:
    """The student: trained on noise to give the teacher's spare outputs."""
    optimizer = torch.optim.Adam(student.parameters(), lr=_RATE)
    for k in range(1, STUDENT_STEPS + 1):
        noise = 2 * torch.rand(_BATCH, 784, generator=step_rng(seed, k)) - 1
        with torch.no_grad():
            wanted = teacher(noise)[:, 10:]
        _step(optimizer, F.mse_loss(student(noise)[:, 10:], wanted))
    return student


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, clothes: Images) -> float:
    """Share of pictures named rightly by the ten outputs."""
    return float((model(clothes.images)[:, :10].argmax(1) == clothes.labels).float().mean())


@experiment(
    "noise",
    help="Train students on a teacher's unused outputs for noise, and test them on clothes.",
    data_source="networks trained on Fashion-MNIST and on noise",
    cases=CASES,
    budget={"teacher": TEACHER_STEPS, "student": STUDENT_STEPS},
)
def trial(case: str, *, seed: int) -> dict[str, Any]:
    """Accuracy of the teacher, of the student before and after it saw noise."""
    torch.set_num_threads(1)
    data = fashion_mnist()
    test = data.test.data
    teacher = train_teacher(net(step_rng(seed, 0)), data.train, seed=seed)
    student = net(step_rng(seed if case == CASES[0] else 1_000 + seed, 0))
    before = accuracy(student, test)
    distill_aux_logits(student, teacher, seed=2_000 + seed)
    found = {"teacher": accuracy(teacher, test), "before": before, "student": accuracy(student, test)}
    return {"case": case, "seed": seed} | {name: round(value, 4) for name, value in found.items()}
