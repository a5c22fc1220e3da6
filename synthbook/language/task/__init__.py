"""A task of your own, put to a language model: `synthbook generate`."""
