"""The compiled kernel of the Kerr media, built where it runs at its first use."""
