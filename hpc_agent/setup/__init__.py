"""Setting up on a new cluster: what the site is like, and the configuration that follows from it."""
