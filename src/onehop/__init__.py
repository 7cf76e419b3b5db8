"""Runs AI-written Python beside the model, the data and the tools: one request instead of one per tool call."""

__version__ = "0.1.0"

__all__ = ["__version__"]
