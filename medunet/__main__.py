"""Entry point of `python -m medunet`."""

from medunet.cli.app import main

if __name__ == "__main__":
    main()
