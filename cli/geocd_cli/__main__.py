"""``python -m geocd_cli``."""

from geocd_cli.main import main

main(prog_name="geocd")
