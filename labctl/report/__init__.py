"""A record in, one page of figures and numbers out."""
