def sinkhorn(): pass
