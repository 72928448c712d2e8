"""From a RUN to a bundle; needs the extra `export`.

graph       a PyTorch module → ONNX, weights inside, axes named
runs        a RUN of any kind: its module, manifest and golden data
anomaly     those of an anomaly scorer
navigation  those of an image encoder
custom      a module or an ONNX file of one's own
precision/  fp16 and int8 in the graph
provenance  what a manifest says of weights and where they come from
parity      what ONNX Runtime computes instead of PyTorch
package     all of it, from a RUN to a bundle
models      a RUN or a bundle as something that computes; for a bundle the bare install will do
evaluate_*  what it computes, measured on labelled data
commands/   `limpet export`, `limpet evaluate`
"""
