"""The experiment's schema and its loading from YAML. The only room that reads YAML."""
