"""Estimators that predict classes."""
