"""Killed at any step and resumed, training ends with the same bits; what cannot be learnt is refused at once."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch

from synthbook.core.checkpoints import CheckpointConfig
from synthbook.core.errors import DataError, HoldoutError, InvalidArgument
from synthbook.core.storage import Provenance
from synthbook.core.types import Images
from synthbook.datasets import digits
from synthbook.evaluation.mode_coverage import GRID
from synthbook.generators import neural
from synthbook.generators.base import NotFittedError
from synthbook.generators.diffusion import Diffusion
from synthbook.generators.gan import GAN
from synthbook.generators.neural import NeuralGenerator, TrainingDiverged
from synthbook.generators.vae import VAE

ORIGIN = Provenance("a test", "pytest")
POINTS = GRID.sample(500, seed=0)


def tiny(family: type[NeuralGenerator]) -> NeuralGenerator:
    """A model that trains in no time; the GAN with everything that has a memory."""
    extra = {"spectral_norm": True, "ema_decay": 0.9, "penalty": "r1"} if family is GAN else {}
    return family(width=8, batch_size=16, steps=12, device="cpu", **extra)


def weights(model: NeuralGenerator) -> dict[str, torch.Tensor]:
    return {f"{n}/{k}": v for n, module in model.modules_.items() for k, v in module.state_dict().items()}


class Killed(Exception):
    """What stands for SIGKILL: nothing runs after it."""


@pytest.mark.slow
@pytest.mark.parametrize("family", [VAE, GAN, Diffusion])
@pytest.mark.parametrize("died_at", [1, 4, 7, 11])
@pytest.mark.parametrize("kind", ["points", "images"])
def test_a_resumed_run_ends_with_the_same_bits(
    family: type[NeuralGenerator], died_at: int, kind: str, tmp_path: Path
) -> None:
    data = POINTS if kind == "points" else digits().train

    def die(step: int, steps: int, losses: object) -> None:
        if step == died_at:
            raise Killed

    undisturbed = tiny(family).fit(data, seed=3)
    with pytest.raises(Killed):
        tiny(family).fit(data, seed=3, checkpoint=CheckpointConfig(tmp_path, every_n_steps=2), callback=die)
    resumed = tiny(family).fit(data, seed=3, checkpoint=CheckpointConfig(tmp_path, every_n_steps=2, resume=True))
    for name, value in weights(undisturbed).items():
        assert torch.equal(value, weights(resumed)[name]), name
    assert undisturbed.history_ == resumed.history_
    assert len(list(tmp_path.iterdir())) == 1  # older checkpoints are gone


def learn(folder: Path, steps_done: Connection) -> None:
    """What a process of its own does: it reports each step, and resumes from the newest checkpoint."""
    torch.set_num_threads(1)
    model = Diffusion(width=8, batch_size=16, device="cpu")
    checkpoint = CheckpointConfig(folder / "state", every_n_steps=1, resume=True)
    model.fit(
        digits().train,
        seed=3,
        steps=60,
        checkpoint=checkpoint,
        callback=lambda step, steps, losses: steps_done.send(step),
    )
    model.save(folder / "model", ORIGIN)


@pytest.mark.slow
def test_sigkill_at_random_moments_leaves_no_trace(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("forkserver")  # it imports once what every process needs
    processes.set_forkserver_preload([__name__, "torch._dynamo", "sklearn.datasets"])

    def start(folder: str) -> tuple[BaseProcess, Connection]:
        receiver, sender = processes.Pipe(duplex=False)
        run = processes.Process(target=learn, args=(tmp_path / folder, sender))
        run.start()
        sender.close()
        return run, receiver

    def steps(receiver: Connection) -> Iterator[int]:
        while True:
            try:
                yield receiver.recv()
            except EOFError:
                return

    def whole(run: BaseProcess, receiver: Connection) -> list[int]:
        numbers = list(steps(receiver))
        run.join()
        assert run.exitcode == 0
        return numbers

    assert whole(*start("undisturbed")) == list(range(1, 61))
    seen, rng = [0], np.random.default_rng(0)
    for _ in range(3):
        run, receiver = start("killed")
        for _ in range(int(rng.integers(4, 19))):  # with a checkpoint at each step, most kills hit one being written
            seen.append(next(steps(receiver)))
        run.kill()
        run.join()
        assert run.exitcode == -signal.SIGKILL
        seen += steps(receiver)  # what it had said before it died
    last = whole(*start("killed"))
    assert 1 < last[0] <= max(seen) + 1 and last[-1] == 60  # it went on, and did not begin again
    one, two = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("undisturbed", "killed"))
    assert one == two


@pytest.mark.slow
@pytest.mark.parametrize("family", [VAE, GAN, Diffusion])
def test_a_look_at_samples_does_not_disturb_training(family: type[NeuralGenerator]) -> None:
    undisturbed, watched = tiny(family).fit(POINTS, seed=3), tiny(family)
    watched.fit(POINTS, seed=3, on_eval=lambda step: watched.sample(3, seed=step))
    for name, value in weights(undisturbed).items():
        assert torch.equal(value, weights(watched)[name]), name


def test_a_checkpoint_that_was_being_written_is_passed_over(tmp_path: Path) -> None:
    tiny(VAE).fit(POINTS, seed=3, steps=12, checkpoint=CheckpointConfig(tmp_path, every_n_steps=4))
    torn = tmp_path / "step-00000099"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half of it")
    assert len(tiny(VAE).fit(POINTS, seed=3, checkpoint=CheckpointConfig(tmp_path, resume=True)).history_) == 12
    (tmp_path / "step-00000012" / "model.safetensors").write_bytes(b"half of it")
    with pytest.raises(DataError, match="cannot be read"):
        tiny(VAE).fit(POINTS, seed=3, checkpoint=CheckpointConfig(tmp_path, resume=True))


def test_another_run_is_not_resumed_and_nothing_is_overwritten(tmp_path: Path) -> None:
    tiny(VAE).fit(POINTS, seed=3, checkpoint=CheckpointConfig(tmp_path, every_n_steps=4))
    with pytest.raises(InvalidArgument, match="or resume"):
        tiny(VAE).fit(POINTS, seed=3, checkpoint=CheckpointConfig(tmp_path))
    for change, model, data in (
        ("seed", tiny(VAE), POINTS),
        ("data", tiny(VAE), POINTS[:400]),
        ("config", VAE(width=16, batch_size=16, steps=12), POINTS),
    ):
        with pytest.raises(InvalidArgument, match=change):
            model.fit(data, seed=4 if change == "seed" else 3, checkpoint=CheckpointConfig(tmp_path, resume=True))


@pytest.mark.slow
@pytest.mark.parametrize("family", [VAE, GAN, Diffusion])
def test_same_seed_same_samples_and_saved_is_as_good(family: type[NeuralGenerator], tmp_path: Path) -> None:
    model = tiny(family).fit(digits().train, seed=0)
    again = tiny(family).fit(digits().train, seed=0)
    loaded = family.load(model.save(tmp_path, ORIGIN), device="cpu")
    wanted = np.arange(20) % 10
    one, two, three = (m.sample(20, seed=5, labels=wanted).images for m in (model, again, loaded))
    assert torch.equal(one, two) and torch.equal(one, three)
    assert not torch.equal(one, model.sample(20, seed=6, labels=wanted).images)
    assert one.shape == (20, 1, 8, 8) and one.abs().max() <= 1
    other = next(f for f in (VAE, GAN, Diffusion) if f is not family)
    with pytest.raises(DataError, match=f"checkpoint of '{family.family}'"):
        other.load(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DataError, match="changed after it was written"):
        family.load(tmp_path)


def test_classes_are_drawn_as_asked() -> None:
    model = tiny(VAE).fit(digits().train, seed=0)
    drawn = model.sample(4_000, seed=1)
    assert isinstance(drawn, Images)
    share = np.bincount(drawn.labels, minlength=10) / 4_000
    assert np.abs(share - np.array(model.data_spec_.class_probs)).max() < 4 * (0.1 * 0.9 / 4_000) ** 0.5
    assert model.sample(3, seed=1, labels=[7, 7, 2]).labels.tolist() == [7, 7, 2]
    for wrong in ([7, 7], [7, 7, 10], [0.5, 1, 2], [-1, 0, 0]):
        with pytest.raises(InvalidArgument, match="3 whole numbers from 0 to 9"):
            model.sample(3, seed=1, labels=wrong)
    with pytest.raises(InvalidArgument, match="no classes"):
        tiny(VAE).fit(POINTS, seed=0).sample(3, seed=1, labels=[1, 1, 1])


@pytest.mark.slow
def test_points_come_back_on_their_own_scale() -> None:
    far = 1_000 + 50 * POINTS
    drawn = VAE(width=16, steps=300, latent_dim=2, device="cpu").fit(far, seed=0).sample(500, seed=1)
    assert drawn.shape == (500, 2) and np.abs(drawn.mean(0) - far.mean(0)).max() < 50


def test_what_cannot_be_learnt_is_refused() -> None:
    good = digits().train
    x, y, names = good.images, good.labels, good.class_names
    for wrong, says in (
        (Images(x * 127.5 + 127.5, y, names), r"values in \[-1, 1\]: pixels / 127.5 - 1"),
        (Images(x.where(x < 1, torch.nan), y, names), "NaN"),
        (Images(x[:, 0], y, names), r"unsqueeze\(1\)"),
        (Images(x[..., :7, :7], y, names), "pad them"),
        (Images(x[y != 3], y[y != 3], names), "no image of 3"),
        (Images(x, y[:-1], names), "whole numbers from 0 to 9"),
        (POINTS[:, 0], "points"),
        (POINTS * np.nan, "finite numbers"),
        (POINTS[:10], "at least 16, one batch"),
    ):
        with pytest.raises(InvalidArgument, match=says):
            tiny(VAE).fit(wrong, seed=0)
    with pytest.raises(InvalidArgument, match='prediction_type="v"'):  # ddim would divide by sqrt(alpha_bar_T)
        Diffusion(prediction_type="eps", steps=12, device="cpu").fit(POINTS, seed=0)
    with pytest.raises(HoldoutError):
        tiny(VAE).fit(digits().test, seed=0)  # type: ignore[arg-type]
    with pytest.raises(NotFittedError, match=r"call fit\(\)"):
        tiny(VAE).sample(3, seed=0)
    with pytest.raises(NotFittedError):
        tiny(VAE).save(Path("nowhere"), ORIGIN)


@pytest.mark.parametrize(
    ("family", "settings", "says"),
    [
        (VAE, {"latent": 3}, "some of steps, batch_size, learning_rate, latent_dim"),
        (VAE, {"architecture": "deep"}, "one of auto, linear, mlp, conv"),
        (VAE, {"decoder_variance": 0.0}, "positive"),
        (GAN, {"loss": "hinge"}, "one of saturating, non-saturating, wasserstein"),
        (GAN, {"penalty": "l2"}, "one of none, wgan-gp, r1"),
        (Diffusion, {"schedule": "square"}, "one of linear, cosine"),
        (Diffusion, {"prediction_type": "x"}, "one of eps, v"),
        (Diffusion, {"sampling_steps": 2_000}, "from 1 to T"),
    ],
)
def test_settings_are_checked(family: type[NeuralGenerator], settings: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        family(**settings)


def test_a_loss_that_is_not_a_number_ends_training_and_says_what_to_do(tmp_path: Path) -> None:
    model = VAE(width=8, batch_size=16, steps=400, learning_rate=1e4, device="cpu")
    with pytest.raises(TrainingDiverged, match="lower the learning rate"):
        model.fit(POINTS, seed=0)


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [neural.cosine_with_warmup(k, 100) for k in range(1, 101)]
    assert np.argmax(rates) == 4 and rates[4] == 1 and 0 <= rates[-1] < 1e-3
    assert (np.diff(rates[4:]) < 0).all()
