"""Re-save the pretrained models of section 3 with the settings' and tensors' names of generator format 2.

    python .ci/moves/migrate_models.py

Run once, from the root of a checkout. Weights stay bit-equal, which is checked. Hashes follow: of each card, in each
log, in scores.json, in the sidecars; `synthbook data verify --update` writes the manifest. The recorded budgets of two
calibrations, which a test compares with the settings in code, get the settings' new names too.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import torch

from synthbook.core import checkpoints
from synthbook.core.storage import Provenance, read_provenance, sha256_file, write_with_provenance
from synthbook.generators import registry
from synthbook.generators.base import VERSION

MODELS, CALIBRATION = Path("data/artifacts/models"), Path("data/artifacts/calibration")
SETTINGS = {
    "batch": "batch_size",
    "latents": "latent_dim",
    "noise": "decoder_variance",
    "average": "ema_decay",
    "judge_steps": "n_critic",
    "momentum": "adam_beta1",
    "kind": "architecture",
    "predict": "prediction_type",
}
TEXT_SETTINGS = {
    "batch": "batch_size",
    "context": "context_length",
    "width": "d_model",
    "heads": "n_heads",
    "layers": "n_layers",
}
SPEC = {"centre": "mean", "shares": "class_probs"}
TENSORS = [
    (r"^average/", "ema/"),
    (r"^noise/", "log_variance/"),
    (r"^(encoder/|judge/)near\.", r"\1conv_1."),
    (r"^(encoder/|judge/)far\.", r"\1conv_2."),
    (r"^(decoder/|generator/|ema/)far\.", r"\1conv_1."),
    (r"^(decoder/|generator/|ema/)near\.", r"\1conv_2."),
    (r"\.around\.", ".skip."),
    (r"\.asked\.", ".qkv."),
    (r"\.mixed\.", ".proj."),
    (r"^place\.", "pos_emb."),
    (r"^character\.", "tok_emb."),
]


def renamed(settings: dict, names: dict[str, str]) -> dict:
    return {names.get(key, key): value for key, value in settings.items()}


def new_tensor_name(name: str) -> str:
    for pattern, new in TENSORS:
        name = re.sub(pattern, new, name)
    return name


def as_dev(provenance: Provenance) -> Provenance:
    return replace(provenance, command=provenance.command.replace("synthbook train", "synthbook dev train"))


def migrate(folder: Path) -> tuple[str, str]:
    """The old and the new SHA-256 of the weights' file."""
    family, old = checkpoints.read_model_type(folder), sha256_file(folder / checkpoints.WEIGHTS_NAME)
    tensors, card = checkpoints.load(folder)
    names = TEXT_SETTINGS if family.startswith("text-") else SETTINGS
    new_card = {"version": VERSION, "config": renamed(card["config"], names)}
    if "learnt" in card:
        new_card["data_spec"] = renamed(card["learnt"], SPEC)
    else:
        new_card["alphabet"] = card["alphabet"]
    new_tensors = {new_tensor_name(name): tensor for name, tensor in tensors.items()}
    assert len(new_tensors) == len(tensors)
    provenance = as_dev(checkpoints.read_model_provenance(folder))
    checkpoints.save(folder, new_tensors, new_card, model_type=family, provenance=provenance)
    stored, _ = checkpoints.load(folder)
    assert all(torch.equal(stored[new_tensor_name(name)], tensor) for name, tensor in tensors.items())
    registry.load(folder)  # every tensor has its place in the network
    new = sha256_file(folder / checkpoints.WEIGHTS_NAME)
    path = folder / "log.json"
    provenance, log = as_dev(read_provenance(path)), json.loads(path.read_text())
    log |= {"command": provenance.command, "settings": renamed(log["settings"], names), "sha256": new}
    write_with_provenance(path, json.dumps(log, indent=1) + "\n", provenance)
    return old, new


def migrate_budget(name: str, rename) -> None:
    path = CALIBRATION / name / "trials.json"
    provenance, text = read_provenance(path), path.read_text()
    budget = json.loads(text)["budget"]
    old = f'"budget": {json.dumps(budget)}'
    assert text.count(old) == 1
    write_with_provenance(path, text.replace(old, f'"budget": {json.dumps(rename(budget))}'), provenance)


def main() -> None:
    hashes = dict(migrate(path.parent) for path in sorted(MODELS.glob("*/model.json")))
    path = MODELS / "scores.json"
    provenance, text = read_provenance(path), path.read_text()
    for old, new in hashes.items():
        text = text.replace(old, new)
    write_with_provenance(path, text, provenance)
    migrate_budget("modes", lambda budget: {name: renamed(row, SETTINGS) for name, row in budget.items()})
    migrate_budget("rare", lambda budget: {"toy": renamed(budget["toy"], SETTINGS | {"noise": "latent_dim"})})


main()
