"""Section 3, tables: independent margins, copula, bootstrap, trees, and networks, under one interface."""
