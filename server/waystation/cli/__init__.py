"""The command `waystation`. Nothing heavy is imported before a command needs it: help answers at once."""


def main() -> None:
    """Entry point of the console script."""
    from waystation.cli.commands import app

    app()
