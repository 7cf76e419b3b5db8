"""A real server of models that says what it is told to, in every dialect. It knows nothing of pytest."""
