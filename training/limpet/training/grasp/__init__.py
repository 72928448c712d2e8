"""Grasping: table-top clutter, what a depth camera sees of it, and which grasps hold."""
