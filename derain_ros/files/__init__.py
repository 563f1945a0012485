"""Pictures, videos and pairs of them, and where frames come from."""
