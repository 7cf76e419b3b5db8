"""The lambda lane: small functions with JSON in and JSON out, in Monty where they fit it, else in a fresh sandbox."""
