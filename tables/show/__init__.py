"""What was judged, shown: tables in several formats, figures, the regression report."""
