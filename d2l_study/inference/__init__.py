"""Labelling new instances with stored models: model files, inputs, scores, pictures. Never Ray, MLflow or a ledger."""
