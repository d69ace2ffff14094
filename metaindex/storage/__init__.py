"""Levels in segments in snapshots, in memory and on disk."""
