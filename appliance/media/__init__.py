"""The audio clock: RTP in, VAD, playout and RTP out for every call, 50 times a second."""
