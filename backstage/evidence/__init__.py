"""Many runs of the lesson's networks, and what they prove. It drives utils, never the reverse."""
