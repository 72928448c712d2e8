"""Grasp encoders: scenes, labels, network, evaluation."""
