"""Numbers of generated images. A metric is a file with `class Metric`, found by its name:

    metric = build.build('evaluation', dict(name='kid', subsets=20))
    state = metric.update(metric.init(), rows, numbers)   # rows [B, D] of the images with these numbers
    metric.result(metric.merge(state, other_host), reference)

README.md has the metrics, protocols and what a number depends on.
"""
