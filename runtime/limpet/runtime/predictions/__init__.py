"""What `limpet predict` computes offline, a module for each kind of bundle."""
