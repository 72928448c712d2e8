"""Streaming anomaly encoder: from recordings of normal operation to a calibrated scorer.

config        what can be chosen
chain         training rows → preprocessing chain, and what `auto` comes to
data          recordings → frames to fit, frames held out
injection     windows → windows with an anomaly of random strength in them
pseudo        stage 1: windows → windows just beyond normal, by reconstruction error
encoder       causal convolutions that remember
moments       running means and deviations of what each feature deviates from the others
model         encoder, moments and banks: a scorer that remembers its stream
relations     normal frames → how their features go together
objective     stage 2, contrastive loss: normal frames near in time against anomalies
bank          normal frames → a scorer's banks; scores of what was held out
calibration   held-out scores → thresholds
volumes       VUS: scores against labels whose edges are uncertain
judged        a recording's scores beside its labels: flags, incidents, what they found
evaluation    figures of one recording or of several
train         all of it, from a path to a RUN
"""
