"""Which backbone, for which signal, at which length, on this machine."""
