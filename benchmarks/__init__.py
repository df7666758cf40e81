"""Benchmarks; ``scripts/bench`` runs them. Not part of the installed package."""
