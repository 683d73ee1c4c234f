"""An image type, and a format a file. The only place that knows image formats, with `writers`."""
