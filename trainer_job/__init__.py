"""The training job: data in, five trained and compared variants out."""
