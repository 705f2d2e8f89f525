"""The same iteration again, on another device or in another precision: module by module, and whole."""
