"""Checks of manifests, images and monitoring: each module is also a command, `python -m k8s.checks.NAME`."""
