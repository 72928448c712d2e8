"""From a RUN to a bundle; needs the extra `export`.

graph       a PyTorch module → ONNX, weights inside, axes named
golden      what the bundle must compute, by PyTorch
parity      what ONNX Runtime computes instead
package     all of it, from a RUN to a bundle
evaluate    a RUN or a bundle on labelled data; for a bundle the bare install will do
commands/   `limpet export`, `limpet evaluate`
"""
