"""The loop all methods share: device, seeds, cache, checkpoints, self-check; export to ONNX and its checks."""
