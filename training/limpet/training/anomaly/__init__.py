"""Streaming anomaly encoder: from recordings of normal operation to a calibrated scorer.

config        what can be chosen
data          recordings → preprocessing chain, windows to fit, windows held out
injection     windows → windows with an anomaly in them
model         causal encoder, and the scorer with its bank of normal windows
objective     contrastive loss: near in time against injected anomalies
calibration   held-out scores → thresholds
volumes       VUS: scores against labels whose edges are uncertain
judged        a recording's scores beside its labels: flags, incidents, what they found
evaluation    figures of one recording or of several
train         all of it, from a path to a RUN
"""
