"""`python -m rmlib.figures` draws everything again from the records."""

