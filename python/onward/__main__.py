"""`python -m onward` is the command `onward`."""

from . import main

main()
