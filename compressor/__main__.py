"""`python -m compressor` is the `compressor` command."""

from compressor.cli.app import main

if __name__ == "__main__":
    main()
