"""The way in for models that were not trained here: an ONNX file, a Hugging Face folder, a LoRA adapter."""
