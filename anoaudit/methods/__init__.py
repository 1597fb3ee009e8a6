"""One module (or small package) per paper. `registry` imports no torch; implementations load when they are used."""
