"""What the program does, one module each; independent of each other and of any entry point."""
