"""Work that is put off from the import of a module until something needs it."""
