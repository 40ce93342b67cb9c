"""`python -m rmlib.figures` draws everything again from the records."""

from rmlib.figures.drawing import main

if __name__ == "__main__":
    main()
