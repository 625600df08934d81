"""What quantization cost: the same cases through several variants of a model, compared with figures."""
