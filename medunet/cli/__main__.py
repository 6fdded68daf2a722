"""Entry point of `python -m medunet.cli` and `torchrun -m medunet.cli`."""

from medunet.cli.app import main

if __name__ == "__main__":
    main()
