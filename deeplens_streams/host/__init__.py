"""What a process has of the machine that it runs on."""
