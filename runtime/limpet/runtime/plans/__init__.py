"""TensorRT plans: a bundle's graph compiled for one GPU, kept in the bundle's `engines/`.

libraries   TensorRT or TensorRT for RTX, whichever was asked for
devices     the GPU of this machine
key         what a plan is for; its sidecar
store       plans on disk: written in one step, refused where they do not match
profiles    sizes of dynamic axes
builder     a graph → a plan
compiling   all of it
"""
