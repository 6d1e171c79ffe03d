"""What a picture says about its making: one reader for each tool that writes it."""
