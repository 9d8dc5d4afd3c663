"""Problems put to a model, and its replies judged."""
