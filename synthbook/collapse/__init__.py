"""Section 7: model collapse under recursive training, and its prevention."""
