"""`python -m waystation.cli` is the command `waystation`, run by this very Python."""

from waystation.cli import main

if __name__ == "__main__":
    main()
