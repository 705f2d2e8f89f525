"""What is noise between runs of one experiment: rounding, its growth, and what benign repeats show."""
