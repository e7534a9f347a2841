"""Our service beside five others: how each is installed, started and asked."""
