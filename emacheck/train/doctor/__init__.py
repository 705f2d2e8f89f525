"""What a machine can do before anybody trains on it: one line per thing looked at."""
