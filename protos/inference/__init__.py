"""The generated code of the Open Inference Protocol; see `protos.generate`."""
