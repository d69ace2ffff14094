"""Runs plans on snapshots, and takes scores apart."""
