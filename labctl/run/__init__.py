"""One protocol, one bench, one record: the room that sees all three."""
