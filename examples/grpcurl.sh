#!/usr/bin/env bash
# Every kind of call from a shell, by reflection alone: examples/grpcurl.sh [HOST:PORT]
set -euo pipefail
target=${1:-127.0.0.1:50051}

grpcurl -plaintext "$target" list
grpcurl -plaintext -d '{"text": "Worth every minute.", "options": {"top_k": 1, "timings": true}}' "$target" stratified.v1.SentimentService/Classify
grpcurl -plaintext -d '{"items": [{"id": "a", "text": "good"}, {"id": "b", "text": " "}]}' "$target" stratified.v1.SentimentService/BatchClassify
grpcurl -plaintext -d '{"settings": {}} {"item": {"id": "a", "text": "good"}}' "$target" stratified.v1.SentimentService/ClassifyStream
grpcurl -plaintext -d '{}' "$target" stratified.v1.ModelService/ListModels
grpcurl -plaintext -d '{"service": "stratified.v1.SentimentService"}' "$target" grpc.health.v1.Health/Check
