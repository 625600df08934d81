"""`python -m edge.cli` is the program without its installed script."""

from edge.cli.start import main

main()
