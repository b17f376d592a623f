"""The time in which a candidate runs beside the incumbent, closed in windows; a window passes no verdict."""
