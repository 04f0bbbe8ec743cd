"""How well a diagnosis names what ails a run: a labelled gallery, published rules, a score.

python -m benchmarks.diagnosis
"""
