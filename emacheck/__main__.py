"""``python -m emacheck``."""

from emacheck.cli import main

if __name__ == "__main__":
    main()
