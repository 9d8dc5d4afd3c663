"""What the package costs: seconds against bounds, and where compiling goes."""
