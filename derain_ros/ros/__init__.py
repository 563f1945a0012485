"""The ROS 2 node and the programs that drive it; the only place that imports rclpy."""
