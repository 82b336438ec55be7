"""What runs containers: one module for each peer."""
