"""Where items come from: image folders, tables, labels. Every input gives exactly one item, readable or with a reason."""
