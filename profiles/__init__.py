"""What device is this, and what fits on it."""
