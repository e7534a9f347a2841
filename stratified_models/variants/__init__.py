"""Five siblings, which do not know each other: each one use of the strata. The registry names them."""
