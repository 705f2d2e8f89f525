"""The verdict as one page for a browser: self-contained, without scripts, the same bytes for the same verdict."""
