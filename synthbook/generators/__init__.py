"""Section 3: generators that learn, all under one interface: fit, sample, save, load."""
