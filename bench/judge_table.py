"""One judge for the rows of every generator of tables: a classifier that learns from them, and their nearness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier

from synthbook.core.table import Holdout, Schema, Table
from synthbook.datasets import load_schema
from synthbook.evaluation.features import fit_table_encoder
from synthbook.evaluation.novelty import novelty
from synthbook.evaluation.utility import utility


@dataclass(frozen=True)
class Judge:
    """Scores rows against the training rows and Adult's test file."""

    train: Table
    test: Holdout[Table]
    judged: int

    def __call__(self, file: str) -> dict[str, Any]:
        """AUC and F1 of `real` and `synthetic` training rows with intervals, novelty, and rows that break the rule."""
        schema = load_schema("adult")
        absent = {column.name: ["?"] for column in schema.columns if column.missing}
        frame = pd.read_csv(file, na_values=absent, keep_default_na=False)
        made = as_table(frame)
        models = {"gradient boosting": HistGradientBoostingClassifier(early_stopping=False)}
        rows = max(len(made), len(self.train))
        table = utility(
            made, train=self.train, holdout=self.test, target="income", seed=0, models=models, max_rows=rows
        )
        found = table.set_index("protocol")
        scores = {
            kind: {s: [float(found.loc[protocol, s + end]) for end in ("", "_low", "_high")] for s in ("auc", "f1")}
            for kind, protocol in (("real", "TRTR"), ("synthetic", "TSTR"))
        }
        features = fit_table_encoder(self.train)
        few = Table(made.frame.iloc[: self.judged], made.schema)
        new = novelty(features(few), train=features(self.train), holdout=features(self.test.data), seed=0)
        near = {"share": new.dcr_share, "low": new.low, "high": new.high}
        near |= {"copies": new.n_copies, "copies_limit": new.max_copies, "suspicious": new.suspicious}
        broken = sum(rule.count_violations(frame) for rule in schema.rules) / len(frame)
        return scores | {"novelty": near, "broken_rules": broken}


def as_table(frame: pd.DataFrame) -> Table:
    """Rows of Adult as a table without the rule between columns; numbers out of bounds move to the nearest bound."""
    columns = load_schema("adult").columns
    numbers = {c.name: frame[c.name].round().clip(c.lower, c.upper) for c in columns if c.kind == "numeric"}
    return Table(frame.assign(**numbers), Schema(columns, "public"))
