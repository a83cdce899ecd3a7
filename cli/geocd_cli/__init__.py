"""The command line of geocd: parse, call one function, report."""
