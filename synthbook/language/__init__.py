"""Section 4: language models as data engines, and what stands between their text and a training set."""
