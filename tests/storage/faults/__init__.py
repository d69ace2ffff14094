"""Faults: every file call failed or killed in turn, power loss, and kill -9 at random moments."""
