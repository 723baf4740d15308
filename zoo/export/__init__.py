"""Networks made ready to leave: fewer operations, the same answers."""
