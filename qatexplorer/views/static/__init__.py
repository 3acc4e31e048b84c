"""Pictures of a page without a browser: tree, graph and figures as plain HTML and SVG."""
