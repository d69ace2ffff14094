"""Training: the loss, its gradients, the loop."""
