"""Programs that ask the service, each whole; README.md lists them."""
