"""Manifests, and the checks that hold them to the code."""
