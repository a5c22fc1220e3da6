"""What is measured on several seeds for the claims. No wing imports it."""
