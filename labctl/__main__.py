"""``python -m labctl`` does what the command ``labctl`` does."""

from labctl.cli import main

if __name__ == "__main__":
    main()
