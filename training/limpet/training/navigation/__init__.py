"""Navigation: indoor scenes, the PointGoal environment, recorded trajectories and logs.

solids        boxes, cylinders, rectangles; obstacles seen from above
plan, shell   rooms, doors and windows → floors, walls, ceilings, frames
pieces        what families of furniture draw: `seating`, `storage`, `fittings`
furniture     which furniture stands in rooms of each kind
furnishing    furniture put into a plan, so that every room stays reachable
layouts       all of it from a seed: the geometry of one scene, without any appearance
free_space    where a robot can go, shortest distances
surfaces      a layout's rectangles as tables of triangles, texels and luxels
camera        which rays camera and LiDAR cast
geometry      what rays meet (Open3D)
textures      patterns and image files, split among the sets encoder, policy and test
appearance    textures, colours, lamps, daylight and photometry from a set and a seed
lighting      light and shadows on every luxel
painting      geometry in an appearance → photographs
scenes        all of these by seed, kept while in use
robot         a disc that drives, turns, and stops where it touches
episodes      starts and goals
environment   PointGoal for Gymnasium
controllers   hand-written drivers: upper bound, reactive, blind
trajectories  recorded episodes
pairs         the same pose in several appearances, for contrastive training
teacher       the LiDAR driver shows a policy how to drive, and what there is to remember
policy        the network that remembers and drives; with an encoder, one graph
policy_config what can be chosen when training it
senses        what it perceives: embedding, LiDAR, nothing, pixels
fleet         environments that are stepped together, and what each trip remembers
imitation     following the teacher, through time
sac           Soft Actor-Critic, from where imitation came to
course        the stages of a training, from checkpoint to checkpoint
policy_train  all of that into a RUN
policy_evaluation  success rate and SPL on the same episodes for every policy
benchmark     how fast scenes are rendered
logs, bags    a user's own recordings: folders, ROS bags
frames        pairs or recordings, as training and evaluation take them
similarity    how alike two frames are in geometry
augmentations colours, brightness, mirror and crops, in batches
encoder       camera images → embeddings of unit length
objective     batches and the contrastive losses
hardening     batches changed to where the contrast is hardest
autoencoder   a control
train         all of it, from frames to a RUN
evaluation    what embeddings are worth; `neighbours` draws it
"""
