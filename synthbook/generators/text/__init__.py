"""Section 3, text: counting what follows what, and a small transformer; bits per character for both."""
