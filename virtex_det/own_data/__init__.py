"""From own data to a first run: a look at the data, their page, and a config made for them."""
