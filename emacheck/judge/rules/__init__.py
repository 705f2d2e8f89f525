"""The rules: each turns a comparison into findings and holds its limits as fields."""
