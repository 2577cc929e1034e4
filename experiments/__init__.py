"""One paper task a file, and the programs that run them."""
