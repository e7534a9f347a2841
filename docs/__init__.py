"""The pages that people read; the one program here is `docs.generate`."""
