"""Decoders of image and sound files."""
