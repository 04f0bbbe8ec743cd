"""Score how well a diagnosis names training problems: labeled runs, published rules, scores.

python -m benchmarks.diagnosis
"""
