"""Data in NumPy arrays: one module for each source; nothing here needs JAX."""
