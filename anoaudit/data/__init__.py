"""Where items come from: image folders, tables, labels. Every input is one item, readable or with a reason."""
