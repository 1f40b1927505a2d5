"""The command line: one verb a file in `commands/`, each a recipe that reads aloud."""
