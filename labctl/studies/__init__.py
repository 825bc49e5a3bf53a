"""The experiments of the document that the project comes from, one module each."""
