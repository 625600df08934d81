"""Tool calls from small models, on the device: load, chat with tools, stream."""
