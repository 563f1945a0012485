"""Read recorded bags, damaged ones included, derain them, and write them reproducibly."""
