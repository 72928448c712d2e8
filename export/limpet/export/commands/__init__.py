"""Commands of export, one module each."""
