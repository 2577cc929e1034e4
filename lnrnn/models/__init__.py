"""One linen model per task of the paper: no data, no loss."""
