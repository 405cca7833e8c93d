"""What the tables know, as one page for a browser: `page` says what stands where, `charts` draws."""
