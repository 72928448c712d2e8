"""Grasp encoders: one or two depth images → 6-DoF grasps, and embeddings of scene and seeds.

graspnet       GraspNet-1Billion's folder layout; `label_cache` maps its labels into memory
matching       points of a view and the labels of the objects they lie on; `surfaces` measures
samples        two views prepared as the robot prepares them, kept in files
targets        what a scene's labels say of seeds, in a frame that may be turned
augmentations  what a training step changes of a sample
config         what can be chosen
grouping       neighbours and surface forms as plain operations
attention      self-attention, the same
backbone       a cloud → features of its candidates
fusion         SimAli, CylReg, AltAtt
cylinder       where points lie about an approach, for every angle alike
heads          objectness and graspness, approach directions, scores and widths
encoder        all of it as one graph
contrast       L_con and L_dis
objective      supervision and contrast of a step's scenes
validation     quick figures by the labels alone
train          from a data set to a RUN
scenes         table-top clutter, its labels, and whether a grasp lifts
judging        average precision, controls, and `limpet evaluate grasp`
"""
