"""What a run leaves on disk, and what is read of it again: its folder, its checkpoints, a member's file."""
