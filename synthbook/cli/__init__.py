"""The `synthbook` command, one module for each kind of reader; `main` joins them."""
