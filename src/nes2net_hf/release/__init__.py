"""`nes2net release`: writes a folder with all that a model needs on the Hub, tests it, and sends it."""
