"""Market data and what the model says about the future of a price: investor reports and forecasts.

`document` turns bytes into a tree with line numbers, `data` the tree into market data or faults, `watch` keeps the
newest good data of a file. `distribution` asks the model about risk-neutral probabilities and quantiles, `report` puts
an answer together. Nothing here knows of HTTP.
"""
