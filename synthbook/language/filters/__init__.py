"""Section 4.3: is it right? Running it, asking twice, judging, comparing, and what each of these misses."""
