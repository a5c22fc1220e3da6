"""Section 5: privacy that is engineered (`generators`), accounted (here) and attacked (`attacks`)."""
