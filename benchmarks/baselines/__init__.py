"""One small file for each other library."""
