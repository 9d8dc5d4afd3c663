"""Costs of the package: seconds against bounds, and where compiling goes."""
