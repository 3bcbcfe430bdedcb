"""Host adapters: one file for each training framework."""
