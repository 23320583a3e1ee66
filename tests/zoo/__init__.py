"""Small models, one for each kind of output, and candidates made of them by one edit."""
