"""From a verdict to something that people and machines read: pure functions, nothing is printed here."""
