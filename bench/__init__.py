"""What Waystation costs, measured by hand: `make bench`, or `python -m bench --help`. Tests never assert times."""
