"""`python -m node` is `pacsnode`."""

from node.cli import main

if __name__ == "__main__":
    main()
