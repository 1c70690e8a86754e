"""Estimators that choose a penalty by cross-validation."""
