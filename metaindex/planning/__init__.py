"""Plans, and what they and an index cost: numbers in, numbers out, never arrays."""
