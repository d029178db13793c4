"""The only package that starts programs. Commands are lists; every wait has a bound."""
