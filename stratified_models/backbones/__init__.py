"""One adapter per family of pretrained encoders; the registry names them."""
