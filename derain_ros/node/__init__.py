"""The lifecycle node, all that runs on a vehicle beside images and engines."""
