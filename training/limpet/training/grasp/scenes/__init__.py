"""Table-top clutter: what a depth camera sees of it, which grasps hold, and whether they lift.

shapes            solids: signed distance, and convex pieces for physics
everyday, tools   families of objects, drawn from a random generator
meshes            a union of solids as one closed mesh; its mass
objects           the catalogue, split into train, similar and novel
physics, settle   objects and a table in MuJoCo; clutter at rest
rendering, sensor depth and labels by ray casting; a stereo camera's noise
gripper           the evaluator's gripper, and what is in its way
labels            force closure and self-collision of all candidates of an object
scene_collisions  the same candidates against the rest of a scene
layout            GraspNet-1Billion's files
generate          all of it into a data set (`python -m limpet.training.grasp.scenes.generate`)
lift              close, lift 20 cm, shake: whether a grasp holds in MuJoCo
"""
