"""An image type, one door, a format a file. The only place that knows image formats, with `writers`."""
