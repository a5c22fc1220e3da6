"""Section 6: is synthetic data real, varied, useful and new? Measures, their chance values, and one report."""
