"""`python -m unmirage`, which launchers such as `torchrun -m unmirage` can start too."""

from unmirage.cli import main

if __name__ == "__main__":
    main()
