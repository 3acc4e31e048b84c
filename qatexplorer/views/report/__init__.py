"""Reports: all that is known of a session, or of a run on disk, as one HTML page."""
