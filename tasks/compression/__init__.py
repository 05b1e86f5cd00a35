"""Compression: ONNX, INT8 in two profiles, and the signed bundle."""
