"""What workstation and robot agree on: tensors, bundles, messages, preprocessing, errors."""
