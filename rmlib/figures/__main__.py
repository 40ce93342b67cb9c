from rmlib.figures.drawing import main

main()
