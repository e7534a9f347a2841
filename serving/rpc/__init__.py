"""All that knows gRPC: messages, statuses, servicers, the interceptor, health, reflection, the servers."""
