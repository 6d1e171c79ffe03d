"""`clipcond tokens`: how CLIP will split a prompt, and what a stock pipeline would lose."""
