"""Commands of the operator that are longer than a few lines, one file each; cli.py names them."""
