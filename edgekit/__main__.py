"""`python -m edgekit`: the command line, for launchers that start a module in several processes."""

from edgekit.cli.main import main

if __name__ == "__main__":
    main()
