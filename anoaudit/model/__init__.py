"""The artefact on disk: manifest, integrity, onnxruntime session, calibration. Never imports torch."""
