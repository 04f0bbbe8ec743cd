"""The reader of Keras models.

`weights` names the weights and selects some of them, `layers` reads activations, initializers and
losses, `graph` reads which layer feeds which, `facts` reads what the diagnosis uses.
"""
