"""Speech and language engines, each in worker processes behind a batcher."""
