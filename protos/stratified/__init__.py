"""Packages of the wire contract, by version."""
