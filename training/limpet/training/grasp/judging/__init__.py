"""How good grasps are: in scenes whose meshes are known, and on real clouds.

average_precision, force_closure  AP as GraspNet's public evaluator computes it
view_pairs                        which two views of a scene; views that see little of it
observed, normals                 free of, and antipodal on, a cloud without meshes
real_scenes                       single real scenes as they lie in folders
antipodal                         the geometric control
finders, evaluation               what finds grasps, and `limpet evaluate grasp`
"""
