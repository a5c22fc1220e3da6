"""Section 5: privacy that is engineered, accounted and attacked."""
