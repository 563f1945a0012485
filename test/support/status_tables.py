"""What ``derain top`` prints, read again."""


def row(lines, head, camera='front'):
    """Return a camera's line below the first line that begins with ``head``."""
    start = next(number for number, line in enumerate(lines) if line.startswith(head))
    return next(line for line in lines[start + 1:] if line.startswith(camera)).split()
