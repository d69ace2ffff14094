"""What scorers that run on a GPU have in common: which device, what lies where, and the operations they are made of."""
