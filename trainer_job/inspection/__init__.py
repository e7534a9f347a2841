"""`stratified-train inspect`: what the strata of a finished model are, as a page and as JSON."""
