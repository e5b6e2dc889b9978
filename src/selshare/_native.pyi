"""Compiled kernels: raw pointers in, GIL released, thread count passed in."""
