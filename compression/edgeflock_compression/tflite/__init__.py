"""To a `.tflite`, and reading one."""
