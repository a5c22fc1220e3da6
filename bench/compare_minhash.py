"""Signatures of documents by MinHash: ours against datasketch, on the same tokens.

60 tokens a document, 128 permutations. Writes bench/results/minhash.json.
"""

from __future__ import annotations

from itertools import pairwise

import harness
import numpy as np

SEED, ROUNDS, N, TOKENS, PERMUTATIONS = 0, 7, 5_000, 60, 128
PAIRS = 1_000  # documents that are compared with the next one
WORDS = 30_000


def documents(tokens: np.ndarray) -> list[list[bytes]]:
    """Tokens (N, 60) as the words that both are given."""
    return [[b"word %d" % token for token in row] for row in tokens.astype(int)]


def ours(tokens: np.ndarray) -> dict:
    from synthbook.language.filters.dedup import MinHash

    signed = MinHash(PERMUTATIONS).signatures(documents(tokens))
    return {"similarities": (signed[:-1] == signed[1:]).mean(axis=1)[:PAIRS].tolist()}


def peer(tokens: np.ndarray) -> dict:
    from datasketch import MinHash

    signed = [m.hashvalues for m in MinHash.bulk(documents(tokens), num_perm=PERMUTATIONS)]
    return {"similarities": [float((a == b).mean()) for a, b in pairwise(signed[: PAIRS + 1])]}


def nothing(tokens: np.ndarray) -> dict:
    """Only the words: what both spend before they begin."""
    return {"documents": len(documents(tokens))}


def main() -> None:
    rng = np.random.default_rng(SEED)
    tokens = rng.integers(0, WORDS, (N, TOKENS))
    for k in range(1, N):  # each shares words with the one before it, between none and all
        shared = int(rng.integers(TOKENS + 1))
        tokens[k, :shared] = tokens[k - 1, :shared]
    subjects = [
        harness.Subject("synthbook", "compare_minhash", "ours"),
        harness.Subject("datasketch", "compare_minhash", "peer"),
        harness.Subject("the words alone", "compare_minhash", "nothing"),
    ]
    measured = harness.alternate(subjects, {"tokens": tokens}, ROUNDS)
    alone = measured["the words alone"]["seconds"]["median"]
    per_second = {name: N / (measured[name]["seconds"]["median"] - alone) for name in ("synthbook", "datasketch")}
    sets = [set(row) for row in tokens[: PAIRS + 1].tolist()]
    true = np.array([len(a & b) / len(a | b) for a, b in pairwise(sets)])
    error = {
        name: float(np.sqrt(np.mean((np.array(measured[name]["result"].pop("similarities")) - true) ** 2)))
        for name in per_second
    }
    theory = float(np.sqrt(np.mean(true * (1 - true)) / PERMUTATIONS))
    ratio = per_second["synthbook"] / per_second["datasketch"]
    note = (
        f"{ratio:.1f} times as many documents a second as datasketch. The error of an estimated Jaccard similarity"
        f" should be {theory:.4f}. Making the words, {alone:.2f} s, is not counted for either."
    )
    rows = [[*harness.COLUMNS, "documents a second", "error of similarity"]]
    rows += [harness.row(name, measured[name], f"{per_second[name]:,.0f}", f"{error[name]:.4f}") for name in per_second]
    content = {
        "n": N,
        "tokens": TOKENS,
        "permutations": PERMUTATIONS,
        "measured": measured,
        "documents_per_second": per_second,
        "ratio": ratio,
        "error": error,
        "error_by_theory": theory,
        "machine": harness.machine("datasketch"),
    }
    title = f"MinHash of {N:,} documents of {TOKENS} tokens, {PERMUTATIONS} permutations"
    harness.save_result("minhash", title, note, rows, content, seed=SEED)


if __name__ == "__main__":
    main()
