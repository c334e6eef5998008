"""`python -m mobile_bilayer` is the console script."""

from mobile_bilayer.cli import main

main()
