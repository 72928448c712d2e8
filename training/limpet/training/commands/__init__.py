"""Commands of training, one module each."""
