"""The `red-ray` command: one module per verb, and the only place that prints."""


def main() -> None:
    """Run the command line."""
    from red_ray.cli.app import app

    app()
