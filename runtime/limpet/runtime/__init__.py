"""What runs on the robot: engines, server, streams, detector, alert log, client, commands."""
