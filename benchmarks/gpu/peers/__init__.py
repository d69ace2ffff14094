"""Other libraries, through their public interfaces only."""
