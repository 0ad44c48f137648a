"""`nes2net release`: a folder with everything that a model needs on the Hub, tried before it is sent."""
