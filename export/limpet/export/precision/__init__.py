"""Precision in the graph: what TensorRT runs strongly typed, and any other engine computes alike.

half         nodes in float16, casts where they meet float32
quantized    Q/DQ pairs around products, ranges from real data
calibration  that data
depth_views  of it what a depth camera sees
choice       which nodes may: measured on the golden data, never guessed
neighbours   whether images keep theirs
tolerances   how far such a graph may differ from the float32 one
convert      all of it: a float32 graph and its golden data at another precision
"""
