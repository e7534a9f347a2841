"""The wire contract: `.proto` files, the code generated from them, and its generator."""
