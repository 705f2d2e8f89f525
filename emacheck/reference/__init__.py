"""Reference bundles: stored records of reference runs, with their provenance and the hashes of their files."""
