"""The small transformer looks back only, learns what repeats, and can be stopped and kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from synthbook.core.checkpoints import CheckpointConfig
from synthbook.core.errors import DataError, HoldoutError, InvalidArgument
from synthbook.core.storage import Provenance
from synthbook.datasets import austen
from synthbook.generators.base import NotFittedError
from synthbook.generators.nets import init_weights
from synthbook.generators.text import transformer
from synthbook.generators.text.ngram import CharTokenizer, unigram_entropy
from synthbook.generators.text.transformer import CharTransformer, Transformer, TransformerConfig
from tests.mutation import mutant

TINY = {"steps": 12, "batch_size": 4, "context_length": 16, "d_model": 16, "n_heads": 2, "n_layers": 1}
TEXT = "the cat sat on the mat and the dog sat on the log. " * 40


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def test_nothing_is_seen_of_what_comes_after() -> None:
    def change(module: object) -> tuple[float, float]:
        net = module.CharTransformer(30, TransformerConfig())  # type: ignore[attr-defined]
        net = init_weights(net, torch.Generator().manual_seed(0))
        for name, weight in net.named_parameters():
            if weight.dim() == 2:  # the silent layers, too
                torch.nn.init.normal_(weight, std=0.2, generator=torch.Generator().manual_seed(len(name)))
        codes = torch.randint(30, (2, 40), generator=torch.Generator().manual_seed(1))
        other = codes.clone()
        other[:, 25] = (other[:, 25] + 1) % 30
        away = (net(codes) - net(other)).abs().amax(dim=(0, 2))
        return away[:25].max().item(), away[26:].max().item()

    before, after = change(transformer)
    assert before == 0 and after > 1e-3
    before, _ = change(mutant(transformer, "is_causal=True", "is_causal=False"))
    assert before > 1e-3


def test_it_is_small() -> None:
    net = CharTransformer(len(CharTokenizer.of(austen().train.texts)), TransformerConfig())
    assert sum(p.numel() for p in net.parameters()) < 1_000_000


@pytest.mark.slow
def test_it_learns_what_repeats() -> None:
    model = Transformer(steps=600, batch_size=8, context_length=32, d_model=32, n_heads=2, n_layers=2).fit(TEXT, seed=0)
    assert model.bits_per_character(TEXT[:500]) < 0.5 < unigram_entropy(TEXT)
    made = model.sample(400, seed=0, prompt="the cat sat on ")
    known = [word in TEXT.split() for word in made.split()]
    assert sum(known) > 0.5 * len(known) and made[:60] == model.sample(60, seed=0, prompt="the cat sat on ")


def test_bits_are_those_of_one_character_after_the_other() -> None:
    model = Transformer(**TINY).fit(TEXT, seed=0)
    text = TEXT[5:17]  # within half a context of each other: nothing is cut
    codes = torch.from_numpy(model.tokenizer_.encode("\n" + text))
    total = 0.0
    with torch.no_grad():
        for k in range(1, 9):
            total -= float(F.log_softmax(model.modules_["net"](codes[None, :k])[0, -1], dim=0)[codes[k]])
    assert model.bits_per_character(text[:8]) == pytest.approx(total / 8 / 0.6931472, rel=1e-5)
    assert model.bits_per_character("☃" * 3) > 1  # a character it never saw


def test_training_that_was_broken_off_ends_with_the_same_bits(tmp_path: Path) -> None:
    def dies(step: int, steps: int, losses: object) -> None:
        if step == 7:
            raise KeyboardInterrupt

    whole = Transformer(**TINY).fit(TEXT, seed=3)
    with pytest.raises(KeyboardInterrupt):
        checkpoint = CheckpointConfig(tmp_path / "state", every_n_steps=2)
        Transformer(**TINY).fit(TEXT, seed=3, checkpoint=checkpoint, callback=dies)
    resumed = Transformer(**TINY).fit(
        TEXT, seed=3, checkpoint=CheckpointConfig(tmp_path / "state", every_n_steps=2, resume=True)
    )
    folder = resumed.save(tmp_path / "model", Provenance("a test", "pytest"))
    for one, two in zip(
        Transformer.load(folder).modules_["net"].state_dict().values(),
        whole.modules_["net"].state_dict().values(),
        strict=True,
    ):
        assert torch.equal(one, two)
    assert Transformer.load(folder).sample(20, seed=1) == whole.sample(20, seed=1)
    card = folder / "model.json"
    card.write_text(card.read_text().replace("text-transformer", "text-other"))
    with pytest.raises(DataError):
        Transformer.load(folder)


def test_what_cannot_be_learnt_is_refused() -> None:
    with pytest.raises(HoldoutError):
        Transformer().fit(austen().test, seed=0)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="at least 96"):
        Transformer().fit("short", seed=0)
    with pytest.raises(InvalidArgument, match="heads that divide"):
        Transformer(n_heads=5)
    with pytest.raises(InvalidArgument, match="some of steps"):
        Transformer(depth=3)
    with pytest.raises(NotFittedError):
        Transformer().sample(3, seed=0)
    with pytest.raises(InvalidArgument, match="at least 1"):
        Transformer(**TINY).fit(TEXT, seed=0).sample(0, seed=0)
