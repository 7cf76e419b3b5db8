"""Benchmarks: onehop beside its peers in one run on one machine. `python -m bench`; see README.md."""
