"""A guess before the result: what is predicted is remembered better than what is read."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes

from synthbook.core.plots import GUESS_COLOR


@dataclass(frozen=True)
class Prediction:
    """A reader's guess, waiting for its result."""

    question: str
    guess: float

    def plot_guess(self, ax: Axes, *, x: float | None = None) -> Axes:
        """Draw the guess: a diamond at `x`, or a dotted horizontal line across the axis when `x` is left out."""
        label = f"your guess: {self.guess:g}"
        if x is None:
            ax.axhline(self.guess, color=GUESS_COLOR, linestyle=":", linewidth=2, label=label)
        else:
            ax.plot([x], [self.guess], marker="D", markersize=9, linestyle="", color=GUESS_COLOR, label=label)
        return ax

    def compare(self, result: float) -> str:
        """One sentence that sets the guess beside the result."""
        return f"You guessed {self.guess:g}; the result is {result:.3g}."


def predict(question: str, *, guess: float) -> Prediction:
    """Record a guess and say so; change the number, run the cell again, and the figures below will draw yours."""
    print(f"Your guess: {guess:g}. ({question})")
    return Prediction(question, float(guess))
