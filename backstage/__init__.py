"""What the lessons run on. To follow them, nobody needs to open it."""
