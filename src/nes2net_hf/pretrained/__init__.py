"""Trained models: loads, describes and exports a model's folder, and records what the model was trained from."""
