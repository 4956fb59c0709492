"""Seeded models with real topologies for tests and benchmarks; see scripts/make_models.py."""
