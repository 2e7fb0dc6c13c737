"""unlabeled turns unlabelled data of any domain into a foundation model."""
