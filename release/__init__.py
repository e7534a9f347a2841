"""Makes a release: what is built, tried out and written down; nothing is uploaded."""
