"""Hash-locked requirements of the images; `refresh.py` writes them."""
