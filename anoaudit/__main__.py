"""`python -m anoaudit` is the same program as `anoaudit`."""

from anoaudit.cli import main

if __name__ == "__main__":
    main()
