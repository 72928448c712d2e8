"""Benchmarks of a machine's serving, as `limpet bench` runs them."""
