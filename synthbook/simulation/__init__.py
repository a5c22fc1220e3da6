"""Section 2: mechanistic simulators, randomized rendering with exact labels, and a camera that tests them."""
