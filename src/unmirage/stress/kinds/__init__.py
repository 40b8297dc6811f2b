"""The stresses, one file each; every file registers its own."""
