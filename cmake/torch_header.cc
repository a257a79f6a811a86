// Carries the precompiled header; see cmake/torch_header.h.
