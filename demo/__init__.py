"""A page to try the classifier: a plain client of the service, which knows its answers alone."""
