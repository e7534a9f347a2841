"""The service: loads one bundle or several, and classifies texts over gRPC."""
