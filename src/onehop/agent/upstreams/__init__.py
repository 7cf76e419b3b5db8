"""Servers of models: which there are, how they are reached, and what each dialect says for our words."""
