"""Applications on the board ask here: the Open Inference Protocol v2 over loopback and a Unix socket."""
