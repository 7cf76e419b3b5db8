"""The model loop: a model is asked, what it calls is run next to it, and it is asked again until it answers.

It knows no vendor's wire: those are translated to and from `model` by `wires/` (clients) and `upstreams/` (models).
"""
