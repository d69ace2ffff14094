"""Scorers behind one registry, the reference among them."""
