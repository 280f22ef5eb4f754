"""Cases and label maps on disk: finding, reading, checking, writing."""
