"""What a quantizer of PT2E has written on the nodes of an exported graph, for a user."""
