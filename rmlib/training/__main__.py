import sys

from rmlib.training.loop import main

main(sys.argv[1:])
