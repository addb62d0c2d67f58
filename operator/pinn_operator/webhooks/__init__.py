"""Custom gates that are asked over HTTP. I/O only: what an answer means is in `core.gates`."""
