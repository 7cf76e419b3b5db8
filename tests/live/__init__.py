"""The model loop with real models, when a key of a vendor is in the environment."""
