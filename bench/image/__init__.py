"""The image's Dockerfile, carried out without Docker. See `python -m bench.image --help`."""
